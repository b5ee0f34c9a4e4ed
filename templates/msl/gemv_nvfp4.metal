// needs: e2m1
// NVFP4: floats of 2 bits of exponent and 1 of fraction (E2M1), times a float of 4 and 3 (E4M3) per 16 columns, times a float a
// row.
struct Nvfp4 {
    typedef Codes4 Codes;
    static constexpr constant uint BLOCK = 16;
    static constexpr constant uint TILES = 4;
    static constexpr constant bool WEIGHTS = true;
    // Moved to where a half has exponent and fraction, scales are short of 2^8, subnormal ones too.
    static constexpr constant float UNIT = E2m1Codes::UNIT * 256.0f;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factors() { return scales<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 16)); }

    // A scale, times 2^-8.
    static inline float scale(uint code) {
        return float2(as_type<half2>((code << 8 & 0x8000u) | (code << 7 & 0x3F80u))).x;
    }

    // What a lane loads of T tiles.
    struct Raw {
        uint q[Codes::words(TILES)];
        uint bytes;
        float factor;
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        load_words<T>(
            plane_row<COLS / 16>(weights + scales<ROWS, COLS>(), row, step) + tile * 16 + lane / 2 * T, &raw.bytes);
        raw.factor = *(device const float*)plane_row<4>(weights + factors<ROWS, COLS>(), row, step);
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        E2m1Codes::decode(raw.q[t], w);
    }

    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        return fma(raw.factor * (UNIT * scale(raw.bytes >> (8 * t) & 255)), dot_run_pair(w, v, 0.0f), acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_nvfp4(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Nvfp4>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_nvfp4(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Nvfp4::BLOCK, Nvfp4::TILES>(col);
    const uint4 codes = uint4(Codes4::four<ROWS, COLS>(weights, row, p));
    device const uchar* scales = plane_row<COLS / 16>(weights + Nvfp4::scales<ROWS, COLS>(), row, 0) + p.tile * 16;
    const float scale = Nvfp4::UNIT * Nvfp4::scale(scales[p.lane / 2 * p.count + p.t]);
    const float factor = *(device const float*)plane_row<4>(weights + Nvfp4::factors<ROWS, COLS>(), row, 0);
    return factor * scale * E2m1Codes::four(codes);
}
