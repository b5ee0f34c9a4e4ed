// needs: points_iq1_s, shifted_points
// IQ1_S: a point of eight columns, a byte with three more bits in a short per 32 columns, which also has a scale of 3
// bits (2 s + 1) and, highest, the sign of an eighth that is added to each coordinate; a half factor per 256.
struct Iq1_s {
    typedef Codes2 Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong short_plane() { return align_plane(ulong(ROWS) * (COLS / 8)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factor_plane() { return short_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 16)); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint points;
        uint shorts[(T + 1) / 2];
        float d[T];
        load_words<T>(plane_row<COLS / 8>(weights, row, step) + tile * 32 + lane * T, &points);
        load_words<2 * T>(
            plane_row<COLS / 16>(weights + short_plane<ROWS, COLS>(), row, step) + tile * 16 + lane / 4 * (2 * T), shorts);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factor_plane<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const uint bits = shorts[t / 2] >> (t % 2 * 16);
            const uint point = (points >> (8 * t) & 255) | (bits >> (lane % 4 * 3) & 7) << 8;
            const float scale = d[t] * float((bits >> 11 & 14) | 1);
            sum = fma(scale, dot_shifted(Iq1_s_POINTS[point], bits >> 15 & 1, v + 2 * t, sums[t]), sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_iq1_s(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Iq1_s>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_iq1_s(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Iq1_s::BLOCK, Iq1_s::TILES>(col);
    const uint at = p.lane * p.count + p.t;
    device const ushort* shorts =
        (device const ushort*)(plane_row<COLS / 16>(weights + Iq1_s::short_plane<ROWS, COLS>(), row, 0) + p.tile * 16);
    const uint bits = shorts[p.lane / 4 * p.count + p.t];
    const uint point = (plane_row<COLS / 8>(weights, row, 0) + p.tile * 32)[at] | (bits >> (p.lane % 4 * 3) & 7) << 8;
    const float d =
        load_half(plane_row<COLS / 128>(weights + Iq1_s::factor_plane<ROWS, COLS>(), row, 0) + p.tile * 2, p.t);
    return d * float((bits >> 11 & 14) | 1) * shifted_point(Iq1_s_POINTS[point], p.j, bits >> 15);
}
