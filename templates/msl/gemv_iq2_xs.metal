// needs: even_signs, points, points_iq2_xs
// IQ2_XS: a point of eight columns in 9 bits, seven signs above them; a scale of 4 bits ((s + 1/2) / 4) per 16 columns,
// a half factor per 256.
struct Iq2_xs {
    typedef PointCodes<4> Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong scale_plane() { return align_plane(ulong(ROWS) * (COLS / 4)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factor_plane() { return scale_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 32)); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint points[(T + 1) / 2];
        float d[T];
        load_words<2 * T>(plane_row<COLS / 4>(weights, row, step) + tile * 64 + lane * (2 * T), points);
        const uint nibs =
            load_fields<T, 4>(plane_row<COLS / 32>(weights + scale_plane<ROWS, COLS>(), row, step) + tile * 8, lane / 2);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factor_plane<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const uint point = points[t / 2] >> (t % 2 * 16);
            const uint2 bytes = as_type<uint2>(Iq2_xs_POINTS[extract_bits(point, 0, 9)]);
            const float scale = half_steps(d[t], extract_bits(nibs, 4 * t, 4));
            sum = fma(scale, dot_signed(bytes, spread_signs(EVEN_SIGNS[extract_bits(point, 9, 7)]), v + 2 * t), sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_iq2_xs(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Iq2_xs>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_iq2_xs(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Iq2_xs::BLOCK, Iq2_xs::TILES>(col);
    const uint at = p.lane * p.count + p.t;
    const uint point = ((device const ushort*)(plane_row<COLS / 4>(weights, row, 0) + p.tile * 64))[at];
    const uint2 bytes = as_type<uint2>(Iq2_xs_POINTS[point & 511]);
    const uint signs = spread_signs(EVEN_SIGNS[point >> 9]);
    const uint scale =
        one_field<4>(plane_row<COLS / 32>(weights + Iq2_xs::scale_plane<ROWS, COLS>(), row, 0) + p.tile * 8, p, p.lane / 2);
    const float d =
        load_half(plane_row<COLS / 128>(weights + Iq2_xs::factor_plane<ROWS, COLS>(), row, 0) + p.tile * 2, p.t);
    return d * (0.25f * float(scale) + 0.125f) * signed_run(p.j == 0 ? bytes.x : bytes.y, p.j, signs);
}
