// needs: codes_5
// Q5_1: a half scale and a half minimum for 32 codes of 5 bits.
struct Q5_1 {
    typedef Codes5 Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint q[Codes::words(T)];
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, q);
        float d[2 * T];
        load_halves<2 * T, alignment(COLS / 8)>(
            plane_row<COLS / 8>(weights + scales<ROWS, COLS>(), row, step) + tile * 32 + lane / 4 * (4 * T), d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            sum = fma(d[2 * t], Codes::dot<0, T>(q, t, v + 2 * t, sums[t]), sum);
            sum = fma(d[2 * t + 1], sums[t], sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q5_1(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Q5_1, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q5_1(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q5_1::BLOCK, Q5_1::TILES>(col);
    const float4 codes = Codes5::four<ROWS, COLS>(weights, row, p);
    device const uchar* scales = plane_row<COLS / 8>(weights + Q5_1::scales<ROWS, COLS>(), row, 0) + p.tile * 32;
    const uint at = p.lane / 4 * p.count + p.t;
    return load_half(scales, 2 * at) * codes + load_half(scales, 2 * at + 1);
}
