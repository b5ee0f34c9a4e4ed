// needs: codes_8, e4m3
// MXFP8: E4M3 values with a power of two (E8M0) for 32 columns.
struct Mxfp8 {
    typedef E4m3Codes Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 2;
    static constexpr constant bool WEIGHTS = true;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes8::bytes<ROWS, COLS>(); }

    // 2^(e - 127); that of 0 is half of the smallest normal number.
    static inline float scale(uint e) { return as_type<float>(max(e << 23, 0x00400000u)); }

    // What a lane loads of T tiles.
    struct Raw {
        uint q[Codes8::words(TILES)];
        uint e[TILES];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        Codes8::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        device const uchar* e =
            plane_row<COLS / 32>(weights + scales<ROWS, COLS>(), row, step) + tile * 8 + lane / 4 * T;
        for (uint t = 0; t < T; ++t) {
            raw.e[t] = e[t];
        }
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        Codes::decode(raw.q, t, w);
    }

    // The unit is not a scale's factor: the largest times it is no number.
    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        return fma(scale(raw.e[t]), Codes::UNIT * dot_run_pair(w, v, 0.0f), acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_mxfp8(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Mxfp8>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_mxfp8(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Mxfp8::BLOCK, Mxfp8::TILES>(col);
    device const uchar* group = plane_row<COLS>(weights, row, 0) + p.tile * TILE;
    const uint codes = ((device const uint*)group)[(p.lane * p.count + p.t) * 2 + p.j];
    device const uchar* e = plane_row<COLS / 32>(weights + Mxfp8::scales<ROWS, COLS>(), row, 0) + p.tile * 8;
    return Mxfp8::scale(e[p.lane / 4 * p.count + p.t]) * (Mxfp8::Codes::UNIT * e4m3_run(codes));
}
