// needs: codes_4
// Q4_1: a half scale and a half minimum for 32 codes of 4 bits.
struct Q4_1 {
    typedef Codes4 Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 4;
    static constexpr constant bool WEIGHTS = false;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes::bytes<ROWS, COLS>(); }

    // What a lane loads of T tiles.
    struct Raw {
        uint q[Codes::words(TILES)];
        float d[2 * TILES];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        load_halves<2 * T, alignment(COLS / 8)>(
            plane_row<COLS / 8>(weights + scales<ROWS, COLS>(), row, step) + tile * 32 + lane / 4 * (4 * T), raw.d);
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        Codes::decode<T>(raw.q, t, w);
    }

    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        return fma(raw.d[2 * t + 1], sum, fma(raw.d[2 * t], dot_run_pair(w, v, 0.0f), acc));
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q4_1(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Q4_1>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q4_1(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q4_1::BLOCK, Q4_1::TILES>(col);
    const float4 codes = Codes4::four<ROWS, COLS>(weights, row, p);
    device const uchar* scales = plane_row<COLS / 8>(weights + Q4_1::scales<ROWS, COLS>(), row, 0) + p.tile * 32;
    const uint at = p.lane / 4 * p.count + p.t;
    return load_half(scales, 2 * at) * codes + load_half(scales, 2 * at + 1);
}
