// needs: gemv_iq4_nl
// IQ4_XS: codes of 4 bits into IQ4_NL's levels, times a scale of 6 bits, less 32, per 32 columns (its low 4 bits in one
// plane, the high 2 in another), times a half factor per 256.
struct Iq4_xs {
    typedef LevelCodes Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 4;
    static constexpr constant bool WEIGHTS = true;

    template <uint ROWS, uint COLS>
    static constexpr ulong low() { return Codes4::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS>
    static constexpr ulong high() { return low<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 64)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factors() { return high<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 128)); }

    // What a lane loads of T tiles, and its level.
    struct Raw {
        uint q[Codes4::words(TILES)];
        float d[TILES];
        float level;
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        raw.level = Iq4_nl_LEVELS[lane % 16];
        Codes4::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        const uint nibs =
            load_fields<T, 4>(plane_row<COLS / 64>(weights + low<ROWS, COLS>(), row, step) + tile * 4, lane / 4);
        const uint top =
            load_fields<T, 2>(plane_row<COLS / 128>(weights + high<ROWS, COLS>(), row, step) + tile * 2, lane / 4);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factors<ROWS, COLS>(), row, step) + tile * 2, raw.d);
        for (uint t = 0; t < T; ++t) {
            raw.d[t] *= float((nibs >> (4 * t) & 15) | (top >> (2 * t) & 3) << 4) - 32.0f;
        }
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        decode_levels<T>(Iq4_nl_LEVELS, raw.level, raw.q[t], w);
    }

    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        return fma(raw.d[t], dot_run_pair(w, v, 0.0f), acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_iq4_xs(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Iq4_xs>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_iq4_xs(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Iq4_xs::BLOCK, Iq4_xs::TILES>(col);
    const uint4 codes = uint4(Codes4::four<ROWS, COLS>(weights, row, p));
    const float4 levels =
        float4(Iq4_nl_LEVELS[codes.x], Iq4_nl_LEVELS[codes.y], Iq4_nl_LEVELS[codes.z], Iq4_nl_LEVELS[codes.w]);
    device const uchar* n = plane_row<COLS / 64>(weights + Iq4_xs::low<ROWS, COLS>(), row, 0) + p.tile * 4;
    device const uchar* h = plane_row<COLS / 128>(weights + Iq4_xs::high<ROWS, COLS>(), row, 0) + p.tile * 2;
    device const uchar* d = plane_row<COLS / 128>(weights + Iq4_xs::factors<ROWS, COLS>(), row, 0) + p.tile * 2;
    const uint scale = one_field<4>(n, p, p.lane / 4) | one_field<2>(h, p, p.lane / 4) << 4;
    return load_half(d, p.t) * (float(scale) - 32.0f) * levels;
}
