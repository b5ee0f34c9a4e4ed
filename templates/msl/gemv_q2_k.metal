// needs: codes_2
// Q2_K: codes of 2 bits, times a scale, less a minimum: 4 bits each in a byte per 16 columns (scale low), with half
// factors of both per 256.
struct Q2_K {
    typedef Codes2 Codes;
    static constexpr constant uint BLOCK = 16;
    static constexpr constant uint TILES = 4;
    static constexpr constant bool WEIGHTS = true;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factors() { return scales<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 16)); }

    // What a lane loads of T tiles.
    struct Raw {
        uint q[Codes::words(TILES)];
        uint bytes;
        float d[2 * TILES];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        load_words<T>(
            plane_row<COLS / 16>(weights + scales<ROWS, COLS>(), row, step) + tile * 16 + lane / 2 * T, &raw.bytes);
        load_halves<2 * T, alignment(COLS / 64)>(
            plane_row<COLS / 64>(weights + factors<ROWS, COLS>(), row, step) + tile * 4, raw.d);
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        Codes::decode<T>(raw.q, t, w);
        scale_codes(w, raw.d[2 * t] * float(raw.bytes >> (8 * t) & 15), -raw.d[2 * t + 1] * float(raw.bytes >> (8 * t + 4) & 15));
    }

    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        return dot_run_pair(w, v, acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q2_k(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Q2_K>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q2_k(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q2_K::BLOCK, Q2_K::TILES>(col);
    const float4 codes = Codes2::four<ROWS, COLS>(weights, row, p);
    device const uchar* scales = plane_row<COLS / 16>(weights + Q2_K::scales<ROWS, COLS>(), row, 0) + p.tile * 16;
    device const uchar* d = plane_row<COLS / 64>(weights + Q2_K::factors<ROWS, COLS>(), row, 0) + (p.tile + p.t) * 4;
    const uint byte = scales[p.lane / 2 * p.count + p.t];
    return load_half(d, 0) * float(byte & 15) * codes - load_half(d, 1) * float(byte >> 4);
}
