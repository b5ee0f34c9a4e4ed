// needs: codes_5, k_scales
// Q5_K: codes of 5 bits, times a scale, less a minimum; see KScales.
struct Q5_K {
    typedef Codes5 Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint q[Codes::words(T)];
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, q);
        uint bytes;
        uint nibs;
        float d[2 * T];
        KScales::load<ROWS, COLS, T>(weights + Codes::bytes<ROWS, COLS>(), row, step, tile, lane, &bytes, &nibs, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const float part = Codes::dot<0, T>(q, t, v + 2 * t, sums[t]);
            sum = fma(d[2 * t] * KScales::scale(bytes, t), part, sum);
            sum = fma(-d[2 * t + 1] * KScales::minimum(bytes, nibs, t), sums[t], sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q5_k(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Q5_K, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q5_k(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q5_K::BLOCK, Q5_K::TILES>(col);
    const float4 codes = Codes5::four<ROWS, COLS>(weights, row, p);
    const float2 scale = KScales::one<ROWS, COLS>(weights + Codes5::bytes<ROWS, COLS>(), row, p);
    return scale.x * codes - scale.y;
}
