// needs: codes_2
// Q2_0: codes of 2 bits, less 1, times a half scale per 64.
struct Q2_0 {
    typedef Codes2 Codes;
    static constexpr constant uint BLOCK = 64;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint q[Codes::words(T)];
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, q);
        float d[T];
        load_halves<T, alignment(COLS / 32)>(
            plane_row<COLS / 32>(weights + scales<ROWS, COLS>(), row, step) + tile * 8 + lane / 8 * (2 * T), d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            sum = fma(d[t], Codes::dot<2, T>(q, t, v + 2 * t, sums[t]), sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q2_0(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Q2_0>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q2_0(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q2_0::BLOCK, Q2_0::TILES>(col);
    const float4 codes = Codes2::four<ROWS, COLS>(weights, row, p);
    device const uchar* scales = plane_row<COLS / 32>(weights + Q2_0::scales<ROWS, COLS>(), row, 0) + p.tile * 8;
    return load_half(scales, p.lane / 8 * p.count + p.t) * (codes - 1.0f);
}
