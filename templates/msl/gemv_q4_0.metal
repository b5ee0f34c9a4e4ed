// needs: codes_4
// Q4_0: a half scale for 32 codes of 4 bits, less 8.
struct Q4_0 {
    typedef Codes4 Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 4;
    static constexpr constant bool WEIGHTS = false;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes::bytes<ROWS, COLS>(); }

    // What a lane loads of T tiles.
    struct Raw {
        uint q[Codes::words(TILES)];
        float d[TILES];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        load_halves<T, alignment(COLS / 16)>(
            plane_row<COLS / 16>(weights + scales<ROWS, COLS>(), row, step) + tile * 16 + lane / 4 * (2 * T), raw.d);
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        Codes::decode<T>(raw.q, t, w);
    }

    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        return fma(raw.d[t], dot_run_pair(w, v, -8.0f * sum), acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q4_0(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Q4_0>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q4_0(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q4_0::BLOCK, Q4_0::TILES>(col);
    const float4 codes = Codes4::four<ROWS, COLS>(weights, row, p);
    device const uchar* scales = plane_row<COLS / 16>(weights + Q4_0::scales<ROWS, COLS>(), row, 0) + p.tile * 16;
    return load_half(scales, p.lane / 4 * p.count + p.t) * (codes - 8.0f);
}
