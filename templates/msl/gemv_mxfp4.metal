// needs: e2m1
// MXFP4: a power of two (E8M0) for 32 values of 4 bits (E2M1).
// 2^(e - 127); that of 0 is half of the smallest normal number.
inline float e8m0(uint e) { return as_type<float>(max(e << 23, 0x00400000u)); }

struct Mxfp4 {
    typedef E2m1Codes Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 4;
    static constexpr constant bool WEIGHTS = true;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes4::bytes<ROWS, COLS>(); }

    // What a lane loads of T tiles.
    struct Raw {
        uint q[Codes4::words(TILES)];
        uint e[TILES];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        Codes4::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        device const uchar* e = plane_row<COLS / 32>(weights + scales<ROWS, COLS>(), row, step) + tile * 8 + lane / 4 * T;
        if (T == 4 && COLS / 32 % 4 == 0) {
            uint bytes;
            load_words<4>(e, &bytes);
            for (uint t = 0; t < T; ++t) {
                raw.e[t] = bytes >> (8 * t) & 255;
            }
        } else {
            for (uint t = 0; t < T; ++t) {
                raw.e[t] = e[t];
            }
        }
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        Codes::decode(raw.q[t], w);
    }

    // The unit is not a scale's factor: the largest times it is no number.
    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        return fma(e8m0(raw.e[t]), Codes::UNIT * dot_run_pair(w, v, 0.0f), acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_mxfp4(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Mxfp4>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_mxfp4(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Mxfp4::BLOCK, Mxfp4::TILES>(col);
    const uint4 codes = uint4(Codes4::four<ROWS, COLS>(weights, row, p));
    device const uchar* e = plane_row<COLS / 32>(weights + Mxfp4::scales<ROWS, COLS>(), row, 0) + p.tile * 8;
    return e8m0(e[p.lane / 4 * p.count + p.t]) * (E2m1Codes::UNIT * E2m1Codes::four(codes));
}
