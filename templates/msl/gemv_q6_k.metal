// needs: codes_6
// Q6_K: codes of 6 bits, less 32, times a scale of 8 bits (stored 128 too large) per 16 columns, times a half factor per
// 256.
struct Q6_K {
    typedef Codes6 Codes;
    static constexpr constant uint BLOCK = 16;
    static constexpr constant uint TILES = 4;
    static constexpr constant bool WEIGHTS = false;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factors() { return scales<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 16)); }

    // What a lane loads of T tiles.
    struct Raw {
        uint q[Codes::words(TILES)];
        uint bytes;
        float d[TILES];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        load_words<T>(
            plane_row<COLS / 16>(weights + scales<ROWS, COLS>(), row, step) + tile * 16 + lane / 2 * T, &raw.bytes);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factors<ROWS, COLS>(), row, step) + tile * 2, raw.d);
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        Codes::decode<T>(raw.q, t, w);
    }

    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        const float scale = raw.d[t] * (float(raw.bytes >> (8 * t) & 255) - 128.0f);
        return fma(scale, dot_run_pair(w, v, -32.0f * sum), acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q6_k(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Q6_K>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
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
