// needs: codes_4, k_scales
// Q4_K: codes of 4 bits, times a scale, less a minimum; see KScales.
struct Q4_K {
    typedef Codes4 Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 4;
    static constexpr constant bool WEIGHTS = true;

    // What a lane loads of T tiles.
    struct Raw {
        uint q[Codes::words(TILES)];
        uint bytes;
        uint nibs;
        float d[2 * TILES];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        KScales::load<ROWS, COLS, T>(weights + Codes::bytes<ROWS, COLS>(), row, step, tile, lane, &raw.bytes, &raw.nibs,
                                     raw.d);
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        Codes::decode<T>(raw.q, t, w);
        const float2 scale = KScales::scale_and_minimum(raw.bytes, raw.nibs, t, raw.d[2 * t], raw.d[2 * t + 1]);
        scale_codes(w, scale.x, -scale.y);
    }

    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        return dot_run_pair(w, v, acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q4_k(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Q4_K>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q4_k(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q4_K::BLOCK, Q4_K::TILES>(col);
    const float4 codes = Codes4::four<ROWS, COLS>(weights, row, p);
    const float2 scale = KScales::one<ROWS, COLS>(weights + Codes4::bytes<ROWS, COLS>(), row, p);
    return scale.x * codes - scale.y;
}
