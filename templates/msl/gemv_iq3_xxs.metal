// needs: even_signs, points, points_iq3_xxs
// IQ3_XXS: two points of four columns, a byte each; per 32 columns a word of four times seven signs and a scale of 4
// bits ((s + 1/2) / 2); a half factor per 256.
struct Iq3_xxs {
    typedef PointCodes<8> Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong word_plane() { return align_plane(ulong(ROWS) * (COLS / 4)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factor_plane() { return word_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 8)); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint points[(T + 1) / 2];
        uint words[T];
        float d[T];
        load_words<2 * T>(plane_row<COLS / 4>(weights, row, step) + tile * 64 + lane * (2 * T), points);
        load_words<4 * T>(
            plane_row<COLS / 8>(weights + word_plane<ROWS, COLS>(), row, step) + tile * 32 + lane / 4 * (4 * T), words);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factor_plane<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const uint pair = points[t / 2] >> (t % 2 * 16);
            const uint2 bytes = uint2(Iq3_xxs_POINTS[extract_bits(pair, 0, 8)], Iq3_xxs_POINTS[extract_bits(pair, 8, 8)]);
            const float scale = half_steps(d[t], extract_bits(words[t], 28, 4));
            const uint signs = EVEN_SIGNS[extract_bits(words[t] >> (lane % 4 * 7), 0, 7)];
            sum = fma(scale, dot_signed(bytes, spread_signs(signs), v + 2 * t), sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_iq3_xxs(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Iq3_xxs>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_iq3_xxs(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Iq3_xxs::BLOCK, Iq3_xxs::TILES>(col);
    const uint at = p.lane * p.count + p.t;
    const uint point = (plane_row<COLS / 4>(weights, row, 0) + p.tile * 64)[2 * at + p.j];
    device const uint* words =
        (device const uint*)(plane_row<COLS / 8>(weights + Iq3_xxs::word_plane<ROWS, COLS>(), row, 0) + p.tile * 32);
    const uint word = words[p.lane / 4 * p.count + p.t];
    const float d =
        load_half(plane_row<COLS / 128>(weights + Iq3_xxs::factor_plane<ROWS, COLS>(), row, 0) + p.tile * 2, p.t);
    const uint signs = EVEN_SIGNS[extract_bits(word >> (p.lane % 4 * 7), 0, 7)];
    const float4 weights4 = signed_run(Iq3_xxs_POINTS[point], p.j, spread_signs(signs));
    return d * (0.5f * float(word >> 28) + 0.25f) * weights4;
}
