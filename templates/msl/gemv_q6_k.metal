// needs: codes_6
// Q6_K: codes of 6 bits, less 32, times a scale of 8 bits (stored 128 too large) per 16 columns, times a half factor per
// 256.
struct Q6_K {
    typedef Codes6 Codes;
    static constexpr constant uint BLOCK = 16;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factors() { return scales<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 16)); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint q[Codes::words(T)];
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, q);
        uint bytes;
        float d[T];
        load_words<T>(
            plane_row<COLS / 16>(weights + scales<ROWS, COLS>(), row, step) + tile * 16 + lane / 2 * T, &bytes);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factors<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const float scale = d[t] * (float(bytes >> (8 * t) & 255) - 128.0f);
            sum = fma(scale, Codes::dot<64, T>(q, t, v + 2 * t, sums[t]), sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q6_k(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Q6_K, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q6_k(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q6_K::BLOCK, Q6_K::TILES>(col);
    const float4 codes = Codes6::four<ROWS, COLS>(weights, row, p);
    device const uchar* scales = plane_row<COLS / 16>(weights + Q6_K::scales<ROWS, COLS>(), row, 0) + p.tile * 16;
    device const uchar* d = plane_row<COLS / 128>(weights + Q6_K::factors<ROWS, COLS>(), row, 0) + p.tile * 2;
    const float scale = load_half(d, p.t) * (float(scales[p.lane / 2 * p.count + p.t]) - 128.0f);
    return scale * (codes - 32.0f);
}
