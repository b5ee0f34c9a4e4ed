// needs: codes_8
// Q8_0: a half scale for 32 codes of 8 bits, less 128 (the stored bytes are signed; packing adds 128).
struct Q8_0 {
    typedef Codes8 Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 2;
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
        return fma(raw.d[t], dot_run_pair(w, v, -128.0f * sum), acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q8_0(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Q8_0>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q8_0(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q8_0::BLOCK, Q8_0::TILES>(col);
    const float4 codes = Codes8::four<ROWS, COLS>(weights, row, p);
    device const uchar* scales = plane_row<COLS / 16>(weights + Q8_0::scales<ROWS, COLS>(), row, 0) + p.tile * 16;
    return load_half(scales, p.lane / 4 * p.count + p.t) * (codes - 128.0f);
}
