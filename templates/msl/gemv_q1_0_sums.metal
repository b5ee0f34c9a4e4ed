// Q1_0 for matrices of many rows, where every instruction per weight counts. A row's sum is made of +x and -x alone, and
// all rows share x: of each four columns the 16 possible sums are put into threadgroup memory once, and a lane then takes
// four weights by one load. Entry e of a run lies at e * 32 + lane, so that each lane keeps to a bank of its own.

// Words of the table: the 32 lanes' two runs of four columns in four tiles.
constant constexpr uint SIGNED_SUMS = 4 * 2 * 16 * LANES;

// The table for COUNT tiles from `tile` on; simdgroups share the work. Bit i of an entry's number says +x[i], else -x[i].
template <uint COLS, uint COUNT, uint SIMDGROUPS>
inline void put_signed_sums(device const float* x, threadgroup float* table, uint tile, uint simdgroup, uint lane) {
    constexpr uint L = Q1_0::BLOCK / 8;
    device const float4* p = (device const float4*)x + tile * (TILE / 4) + lane / L * (2 * L) + lane % L;
    // Lanes without columns, in a last partial tile, have sums of 0.
    const bool owns = COLS % TILE == 0 || tile < COLS / TILE || lane < COLS % TILE / 8;
    for (uint i = simdgroup; i < 2 * COUNT; i += SIMDGROUPS) {
        float4 v = float4(0.0f);
        if (owns) {
            v = p[i / 2 * (TILE / 4) + i % 2 * L];
        }
        const float a = v.x + v.y;
        const float b = v.x - v.y;
        const float c = v.z + v.w;
        const float d = v.z - v.w;
        threadgroup float* entry = table + i * (16 * LANES) + lane;
        entry[0 * LANES] = -a - c;
        entry[1 * LANES] = b - c;
        entry[2 * LANES] = -b - c;
        entry[3 * LANES] = a - c;
        entry[4 * LANES] = d - a;
        entry[5 * LANES] = b + d;
        entry[6 * LANES] = d - b;
        entry[7 * LANES] = a + d;
        entry[8 * LANES] = -a - d;
        entry[9 * LANES] = b - d;
        entry[10 * LANES] = -b - d;
        entry[11 * LANES] = a - d;
        entry[12 * LANES] = c - a;
        entry[13 * LANES] = b + c;
        entry[14 * LANES] = c - b;
        entry[15 * LANES] = a + c;
    }
}

// Adds PER of COUNT tiles from `tile` on, the first of them `first`, to acc.
template <uint ROWS, uint COLS, uint NR, uint SPLIT, uint COUNT, uint PER>
inline void take_signed_sums(device const uchar* weights, threadgroup const float* table, uint row, uint tile,
                             uint first, uint lane, thread float* acc) {
    const uint source = COLS % TILE == 0 || tile < COLS / TILE || lane < COLS % TILE / 8 ? lane : 0;
    // Bytes: a run's 16 entries are 2,048, an entry is 128, a lane 4.
    threadgroup const uchar* sums = (threadgroup const uchar*)table + first * 4096;
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        const uint step = row_step<ROWS, NR, SPLIT>(row, r);
        uint word;
        load_words<PER>(plane_row<COLS / 8>(weights, row, step) + tile * (TILE / 8) + source * COUNT + first, &word);
        float d[PER];
        load_halves<PER, alignment(COLS / 64)>(plane_row<COLS / 64>(weights + Q1_0::scales<ROWS, COLS>(), row, step) +
                                                   tile * 4 + source / 16 * (2 * COUNT) + 2 * first,
                                               d);
        #pragma clang loop unroll(full)
        for (uint t = 0; t < PER; ++t) {
            const uint low = (move_bits(word, 8 * t, 7) & 0x780) | lane * 4;
            const uint high = (move_bits(word, 8 * t + 4, 7) & 0x780) | lane * 4;
            const float sum = *(threadgroup const float*)(sums + low + t * 4096) +
                              *(threadgroup const float*)(sums + high + t * 4096 + 2048);
            acc[r] = fma(d[t], sum, acc[r]);
        }
    }
}

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint SIMDGROUPS, uint COUNT>
inline void add_signed_sums(device const uchar* weights, device const float* x, threadgroup float* table, uint row,
                            uint tile, uint part, uint simdgroup, uint lane, thread float* acc) {
    constexpr uint PER = COUNT > KS ? COUNT / KS : 1;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    put_signed_sums<COLS, COUNT, SIMDGROUPS>(x, table, tile, simdgroup, lane);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (KS <= COUNT || part < COUNT) {
        take_signed_sums<ROWS, COLS, NR, SPLIT, COUNT, PER>(weights, table, row, tile, part * PER, lane, acc);
    }
}

// acc as in gemv_packed, by all SIMDGROUPS of a threadgroup together; a simdgroup without rows repeats the last ones.
template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint SIMDGROUPS>
inline void gemv_q1_0_sums(device const uchar* weights, device const float* x, threadgroup float* table, uint row,
                           uint part, uint simdgroup, uint lane, thread float* acc) {
    constexpr uint GROUPS = COLS / (TILE * 4);
    constexpr uint LEFT = COLS / TILE % 4;
    constexpr uint END = SPLIT == 0 ? ROWS : SPLIT;
    constexpr uint TAKEN = SPLIT == 0 ? NR : (NR + 1) / 2;
    row = min(row, END % TAKEN == 0 ? END - TAKEN : END - 1);
    for (uint r = 0; r < NR; ++r) {
        acc[r] = 0.0f;
    }
    for (uint i = 0; i < GROUPS; ++i) {
        add_signed_sums<ROWS, COLS, NR, KS, SPLIT, SIMDGROUPS, 4>(weights, x, table, row, i * 4, part, simdgroup, lane,
                                                                  acc);
    }
    if (LEFT & 2) {
        add_signed_sums<ROWS, COLS, NR, KS, SPLIT, SIMDGROUPS, 2>(weights, x, table, row, GROUPS * 4, part, simdgroup,
                                                                  lane, acc);
    }
    if (LEFT & 1) {
        add_signed_sums<ROWS, COLS, NR, KS, SPLIT, SIMDGROUPS, 1>(weights, x, table, row, GROUPS * 4 + (LEFT & 2), part,
                                                                  simdgroup, lane, acc);
    }
    if (COLS % TILE != 0) {
        add_signed_sums<ROWS, COLS, NR, KS, SPLIT, SIMDGROUPS, 1>(weights, x, table, row, COLS / TILE, part, simdgroup,
                                                                  lane, acc);
    }
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        acc[r] = simd_sum(acc[r]);
    }
}
