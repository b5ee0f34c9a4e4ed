// needs: shifted_sums
// IQ1_M for matrices of many rows.
struct Iq1_m_Sums : ShiftedSums {
    struct Raw {
        uint2 points;
        uint scales;
        float d[4];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        raw.points = load_points<T>(plane_row<COLS / 16 * 3>(weights, row, step) + tile * 48, lane);
        raw.scales = Iq1_m::load_scales<T>(
            plane_row<COLS / 128 * 3>(weights + Iq1_m::scale_plane<ROWS, COLS>(), row, step) + tile * 6, lane) << 1;
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + Iq1_m::factor_plane<ROWS, COLS>(), row, step) + tile * 2, raw.d);
    }

    template <uint T>
    static inline float take(thread const Raw& raw, uint t, threadgroup const float* table, threadgroup const float* points,
                             uint lane, float acc) {
        const half scale = as_type<half>(ushort((raw.scales >> (3 * t) & 14) | 1));
        const uint lower = bit_of<T>(raw.points, t) >> 24;
        return fma(raw.d[t] * float(scale), sum(table, points, twice_point<T>(raw.points, t), lower, lane), acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint SIMDGROUPS>
inline void gemv_iq1_m_sums(device const uchar* weights, device const float* x, threadgroup float* table, uint row,
                            uint part, uint simdgroup, uint lane, thread float* acc) {
    gemv_by_sums<Iq1_m_Sums, ROWS, COLS, NR, KS, SPLIT, SIMDGROUPS>(weights, x, table, row, part, simdgroup, lane, acc);
}
