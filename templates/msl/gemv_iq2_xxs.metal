// needs: even_signs, points, points_iq2_xxs
// IQ2_XXS: a point of eight columns, a byte; per 32 columns a word of four times seven signs and a scale of 4 bits
// ((s + 1/2) / 4); a half factor per 256.
struct Iq2_xxs {
    typedef PointCodes<4> Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong word_plane() { return align_plane(ulong(ROWS) * (COLS / 8)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factor_plane() { return word_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 8)); }

    // With tables that are constants, or copies of them.
    template <uint ROWS, uint COLS, uint T, typename Points, typename Signs>
    static inline float dot_from(Points points_of, Signs signs_of, device const uchar* weights, uint row, uint step, uint tile,
                                 uint lane, thread const float4* v) {
        uint points;
        uint words[T];
        float d[T];
        load_words<T>(plane_row<COLS / 8>(weights, row, step) + tile * 32 + lane * T, &points);
        load_words<4 * T>(
            plane_row<COLS / 8>(weights + word_plane<ROWS, COLS>(), row, step) + tile * 32 + lane / 4 * (4 * T), words);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factor_plane<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const uint2 bytes = as_type<uint2>(points_of[extract_bits(points, 8 * t, 8)]);
            const uint signs = signs_of[extract_bits(words[t] >> (lane % 4 * 7), 0, 7)];
            const float scale = half_steps(d[t], extract_bits(words[t], 28, 4));
            sum = fma(scale, dot_signed(bytes, spread_signs(signs), v + 2 * t), sum);
        }
        return sum;
    }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        return dot_from<ROWS, COLS, T>(Iq2_xxs_POINTS, EVEN_SIGNS, weights, row, step, tile, lane, v);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_iq2_xxs(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Iq2_xxs>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_iq2_xxs(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Iq2_xxs::BLOCK, Iq2_xxs::TILES>(col);
    const uint at = p.lane * p.count + p.t;
    const uint2 bytes = as_type<uint2>(Iq2_xxs_POINTS[(plane_row<COLS / 8>(weights, row, 0) + p.tile * 32)[at]]);
    device const uint* words =
        (device const uint*)(plane_row<COLS / 8>(weights + Iq2_xxs::word_plane<ROWS, COLS>(), row, 0) + p.tile * 32);
    const uint word = words[p.lane / 4 * p.count + p.t];
    const uint signs = spread_signs(EVEN_SIGNS[extract_bits(word >> (p.lane % 4 * 7), 0, 7)]);
    const float d =
        load_half(plane_row<COLS / 128>(weights + Iq2_xxs::factor_plane<ROWS, COLS>(), row, 0) + p.tile * 2, p.t);
    return d * (0.25f * float(word >> 28) + 0.125f) * signed_run(p.j == 0 ? bytes.x : bytes.y, p.j, signs);
}
