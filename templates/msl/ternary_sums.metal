// Weights of -1, 0 and 1 by sums, for matrices of many rows, where every instruction per weight counts. All rows share the
// input, and three weights are one of 27 patterns: the sums of a lane's columns by every pattern are put into threadgroup memory
// once for the rows of a threadgroup, and a lane then takes its eight weights of a tile by three loads. Entry e of a lane lies at
// e * 32 + lane, so that each lane keeps to a bank of its own. An entry's number is in base 3, digit - 1 a weight, the first
// column's lowest: of columns 0 to 2, of 3 to 5, of 6 and 7.
constant constexpr uint THREE = 27 * LANES;
constant constexpr uint TWO = 9 * LANES;

// Where a lane's entry lies, of which `mask` has the number from bit 7 on: entries are 128 bytes apart.
inline uint entry_bytes(uint number, uint mask, uint lane) { return (number & mask) | lane * 4; }

inline float entry_at(threadgroup const float* table, uint bytes) {
    return *(threadgroup const float*)((threadgroup const uchar*)table + bytes);
}

// `base` and the sums of two columns, STRIDE entries apart.
template <uint STRIDE>
inline void put_nine(threadgroup float* entry, float base, float x, float y) {
    const float a = x + y;
    const float b = x - y;
    entry[0] = base - a;
    entry[1 * STRIDE * LANES] = base - y;
    entry[2 * STRIDE * LANES] = base + b;
    entry[3 * STRIDE * LANES] = base - x;
    entry[4 * STRIDE * LANES] = base;
    entry[5 * STRIDE * LANES] = base + x;
    entry[6 * STRIDE * LANES] = base - b;
    entry[7 * STRIDE * LANES] = base + y;
    entry[8 * STRIDE * LANES] = base + a;
}

// The sums of three columns.
inline void put_three(device const float* x, threadgroup float* entry) {
    const float a = x[0];
    const float b = x[1];
    const float c = x[2];
    put_nine<1>(entry, -c, a, b);
    put_nine<1>(entry + TWO, 0.0f, a, b);
    put_nine<1>(entry + 2 * TWO, c, a, b);
}

// Adds T tiles from `tile` on to acc, STEP of them at a time. The weights of a few rows are on their way before the table is made; those of
// more would take so many registers that fewer threadgroups had room.
template <typename F, uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint SIMDGROUPS, uint T>
inline void add_by_sums(device const uchar* weights, device const float* x, threadgroup float* table, uint row, uint tile,
                        uint part, uint simdgroup, uint lane, thread float* acc) {
    constexpr uint STEP = T < F::STEP ? T : F::STEP;
    constexpr bool EARLY = NR <= 4;
    typename F::Raw raw[EARLY ? NR : 1];
    #pragma clang loop unroll(full)
    for (uint r = 0; EARLY && r < NR; ++r) {
        F::template load<ROWS, COLS, T>(weights, row, row_step<ROWS, NR, SPLIT>(row, r), tile, lane, raw[r]);
    }
    #pragma clang loop unroll(full)
    for (uint t = 0; t < T; t += STEP) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        // Three parts of each tile's table; simdgroups share the work.
        for (uint i = simdgroup; i < 3 * STEP; i += SIMDGROUPS) {
            F::put(x + (tile + t + i % STEP) * TILE + lane * 8, table + i % STEP * F::SUMS + lane, i / STEP);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        #pragma clang loop unroll(full)
        for (uint r = 0; r < NR; ++r) {
            if (!EARLY) {
                F::template load<ROWS, COLS, T>(weights, row, row_step<ROWS, NR, SPLIT>(row, r), tile, lane, raw[0]);
            }
            thread const typename F::Raw& own = raw[EARLY ? r : 0];
            #pragma clang loop unroll(full)
            for (uint s = 0; s < STEP; ++s) {
                if (KS == 1 || (t + s) % KS == part) {
                    threadgroup const float* sums = table + s * F::SUMS;
                    acc[r] = F::template take<T>(own, t + s, sums, table + F::STEP * F::SUMS, lane, acc[r]);
                }
            }
        }
    }
}

// acc as in gemv_packed, by all SIMDGROUPS of a threadgroup together; a simdgroup without rows repeats the last ones. Rows are
// whole tiles.
template <typename F, uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint SIMDGROUPS>
inline void gemv_by_sums(device const uchar* weights, device const float* x, threadgroup float* table, uint row, uint part,
                         uint simdgroup, uint lane, thread float* acc) {
    constexpr uint GROUPS = COLS / (TILE * 4);
    constexpr uint LEFT = COLS / TILE % 4;
    constexpr uint END = SPLIT == 0 ? ROWS : SPLIT;
    constexpr uint TAKEN = SPLIT == 0 ? NR : (NR + 1) / 2;
    row = min(row, END % TAKEN == 0 ? END - TAKEN : END - 1);
    for (uint r = 0; r < NR; ++r) {
        acc[r] = 0.0f;
    }
    // Before the first barrier of the first step.
    F::template put_points<SIMDGROUPS>(table + F::STEP * F::SUMS, simdgroup, lane);
    for (uint i = 0; i < GROUPS; ++i) {
        add_by_sums<F, ROWS, COLS, NR, KS, SPLIT, SIMDGROUPS, 4>(weights, x, table, row, i * 4, part, simdgroup, lane, acc);
    }
    if (LEFT & 2) {
        add_by_sums<F, ROWS, COLS, NR, KS, SPLIT, SIMDGROUPS, 2>(weights, x, table, row, GROUPS * 4, part, simdgroup, lane,
                                                                 acc);
    }
    if (LEFT & 1) {
        add_by_sums<F, ROWS, COLS, NR, KS, SPLIT, SIMDGROUPS, 1>(weights, x, table, row, GROUPS * 4 + (LEFT & 2), part,
                                                                 simdgroup, lane, acc);
    }
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        acc[r] = simd_sum(acc[r]) * F::UNIT;
    }
}
