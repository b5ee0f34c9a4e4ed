// needs: points, points_iq3_s
// IQ3_S: two points of four columns, a byte each with a ninth bit in another plane; a byte of signs; a scale of 4 bits
// (2 s + 1) per 32 columns, a half factor per 256.
struct Iq3_s {
    typedef PointCodes<32> Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong ninth_plane() { return align_plane(ulong(ROWS) * (COLS / 4)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong sign_plane() { return ninth_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 32)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong scale_plane() { return sign_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 8)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factor_plane() { return scale_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 64)); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint points[(T + 1) / 2];
        uint signs;
        float d[T];
        load_words<2 * T>(plane_row<COLS / 4>(weights, row, step) + tile * 64 + lane * (2 * T), points);
        const uint ninth =
            load_fields<T, 2>(plane_row<COLS / 32>(weights + ninth_plane<ROWS, COLS>(), row, step) + tile * 8, lane);
        load_words<T>(
            plane_row<COLS / 8>(weights + sign_plane<ROWS, COLS>(), row, step) + tile * 32 + lane * T, &signs);
        const uint nibs =
            load_fields<T, 4>(plane_row<COLS / 64>(weights + scale_plane<ROWS, COLS>(), row, step) + tile * 4, lane / 4);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factor_plane<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const uint pair = points[t / 2] >> (t % 2 * 16);
            const uint2 bytes = uint2(Iq3_s_POINTS[(pair & 255) | (ninth >> (2 * t) & 1) << 8],
                                      Iq3_s_POINTS[(pair >> 8 & 255) | (ninth >> (2 * t + 1) & 1) << 8]);
            const float scale = half_steps(d[t], extract_bits(nibs, 4 * t, 4));
            sum = fma(scale, dot_signed(bytes, spread_signs(signs >> (8 * t) & 255), v + 2 * t), sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_iq3_s(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Iq3_s>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_iq3_s(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Iq3_s::BLOCK, Iq3_s::TILES>(col);
    const uint at = p.lane * p.count + p.t;
    const uint ninth =
        one_field<2>(plane_row<COLS / 32>(weights + Iq3_s::ninth_plane<ROWS, COLS>(), row, 0) + p.tile * 8, p, p.lane);
    const uint point = (plane_row<COLS / 4>(weights, row, 0) + p.tile * 64)[2 * at + p.j] | (ninth >> p.j & 1) << 8;
    const uint signs = (plane_row<COLS / 8>(weights + Iq3_s::sign_plane<ROWS, COLS>(), row, 0) + p.tile * 32)[at];
    const uint scale =
        one_field<4>(plane_row<COLS / 64>(weights + Iq3_s::scale_plane<ROWS, COLS>(), row, 0) + p.tile * 4, p, p.lane / 4);
    const float d =
        load_half(plane_row<COLS / 128>(weights + Iq3_s::factor_plane<ROWS, COLS>(), row, 0) + p.tile * 2, p.t);
    return d * (2.0f * float(scale) + 1.0f) * signed_run(Iq3_s_POINTS[point], p.j, spread_signs(signs));
}
