// needs: codes_4, levels
// IQ4_NL: a half scale for 32 codes of 4 bits into fixed levels (GGML's kvalues_iq4nl).
constant float Iq4_nl_LEVELS[16] = {
    -127.0f, -104.0f, -83.0f, -65.0f, -49.0f, -35.0f, -22.0f, -10.0f, 1.0f, 13.0f, 25.0f, 38.0f, 53.0f, 69.0f, 89.0f, 113.0f,
};

struct Iq4_nl {
    typedef LevelCodes Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 4;
    static constexpr constant bool WEIGHTS = true;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes4::bytes<ROWS, COLS>(); }

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
        load_halves<T, alignment(COLS / 16)>(
            plane_row<COLS / 16>(weights + scales<ROWS, COLS>(), row, step) + tile * 16 + lane / 4 * (2 * T), raw.d);
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
inline void gemv_iq4_nl(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Iq4_nl>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_iq4_nl(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Iq4_nl::BLOCK, Iq4_nl::TILES>(col);
    const uint4 codes = uint4(Codes4::four<ROWS, COLS>(weights, row, p));
    const float4 levels =
        float4(Iq4_nl_LEVELS[codes.x], Iq4_nl_LEVELS[codes.y], Iq4_nl_LEVELS[codes.z], Iq4_nl_LEVELS[codes.w]);
    device const uchar* scales = plane_row<COLS / 16>(weights + Iq4_nl::scales<ROWS, COLS>(), row, 0) + p.tile * 16;
    return load_half(scales, p.lane / 4 * p.count + p.t) * levels;
}
