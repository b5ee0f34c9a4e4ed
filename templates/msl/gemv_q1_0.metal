// needs: codes_1
// Q1_0: a half scale for 128 signs; 1 is +scale, 0 is -scale.
struct Q1_0 {
    typedef Codes1 Codes;
    static constexpr constant uint BLOCK = 128;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint q[Codes::words(T)];
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, q);
        float d[T];
        load_halves<T, alignment(COLS / 64)>(
            plane_row<COLS / 64>(weights + scales<ROWS, COLS>(), row, step) + tile * 4 + lane / 16 * (2 * T), d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            sum = fma(d[t], Codes::dot<2, T>(q, t, v + 2 * t, sums[t]), sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q1_0(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Q1_0>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q1_0(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q1_0::BLOCK, Q1_0::TILES>(col);
    const float4 codes = Codes1::four<ROWS, COLS>(weights, row, p);
    device const uchar* scales = plane_row<COLS / 64>(weights + Q1_0::scales<ROWS, COLS>(), row, 0) + p.tile * 4;
    return load_half(scales, p.lane / 16 * p.count + p.t) * (codes - 1.0f);
}
