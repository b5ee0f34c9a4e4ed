// IQ2_XXS for matrices of many rows: the points and the signs lie in threadgroup memory, where lanes that look up different ones
// wait less for one another than at the cache.
constant constexpr uint IQ2_XXS_POINT_WORDS = 2 * 256;

template <uint ROWS, uint COLS, uint NR, uint SPLIT, uint T>
inline void add_iq2_xxs(device const uchar* weights, device const float* x, threadgroup const float* table, uint row, uint tile,
                        uint lane, thread float* acc) {
    float4 v[2 * T];
    load_input<Iq2_xxs::BLOCK, T>(x, tile, lane, v);
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        acc[r] += Iq2_xxs::dot_from<ROWS, COLS, T>((threadgroup const ulong*)table,
                                                   (threadgroup const uchar*)(table + IQ2_XXS_POINT_WORDS), weights, row,
                                                   row_step<ROWS, NR, SPLIT>(row, r), tile, lane, v);
    }
}

// acc as in gemv_packed, with tables that all SIMDGROUPS of a threadgroup copy.
template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint SIMDGROUPS>
inline void gemv_iq2_xxs_shared(device const uchar* weights, device const float* x, threadgroup float* table, uint row,
                                uint part, uint simdgroup, uint lane, thread float* acc) {
    constexpr uint GROUPS = COLS / (TILE * 4);
    constexpr uint LEFT = COLS / TILE % 4;
    for (uint i = simdgroup * LANES + lane; i < 256; i += SIMDGROUPS * LANES) {
        ((threadgroup ulong*)table)[i] = Iq2_xxs_POINTS[i];
    }
    for (uint i = simdgroup * LANES + lane; i < 128; i += SIMDGROUPS * LANES) {
        ((threadgroup uchar*)(table + IQ2_XXS_POINT_WORDS))[i] = EVEN_SIGNS[i];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint r = 0; r < NR; ++r) {
        acc[r] = 0.0f;
    }
    if (row < (SPLIT == 0 ? ROWS : SPLIT)) {
        for (uint i = part; i < GROUPS; i += KS) {
            add_iq2_xxs<ROWS, COLS, NR, SPLIT, 4>(weights, x, table, row, i * 4, lane, acc);
        }
        if (part == GROUPS % KS) {
            if (LEFT & 2) {
                add_iq2_xxs<ROWS, COLS, NR, SPLIT, 2>(weights, x, table, row, GROUPS * 4, lane, acc);
            }
            if (LEFT & 1) {
                add_iq2_xxs<ROWS, COLS, NR, SPLIT, 1>(weights, x, table, row, GROUPS * 4 + (LEFT & 2), lane, acc);
            }
        }
    }
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        acc[r] = simd_sum(acc[r]) * Iq2_xxs::Codes::UNIT;
    }
}
