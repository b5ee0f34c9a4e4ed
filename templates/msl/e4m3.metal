// Two codes in the low bytes of halves, times 2^-8.
inline float2 e4m3_pair(uint bits) {
    return float2(as_type<half2>((bits << 8 & 0x80008000u) | (bits << 7 & 0x3F803F80u)));
}

// The four codes of a word, times 2^-8.
inline float4 e4m3_run(uint word) {
    const float2 even = e4m3_pair(word & 0x00FF00FFu);
    const float2 odd = e4m3_pair(word >> 8 & 0x00FF00FFu);
    return float4(even.x, odd.x, even.y, odd.y);
}

// Codes of 8 bits that are floats of 4 bits of exponent and 3 of fraction (E4M3), biased by 7. Moved to where a half has them they
// are that number times 2^-8, subnormal ones too.
struct E4m3Codes {
    static constexpr constant float UNIT = 256.0f;

    static inline void place_input(uint t, thread float4* v) {}

    // The codes of a lane's 8 columns of tile t, in units.
    static inline void decode(thread const uint* words, uint t, thread float4* w) {
        w[0] = e4m3_run(words[2 * t]);
        w[1] = e4m3_run(words[2 * t + 1]);
    }
};

// E4M3 values with a float scale for GROUP columns.
template <uint GROUP>
struct E4m3 {
    typedef E4m3Codes Codes;
    static constexpr constant uint BLOCK = GROUP;
    static constexpr constant uint TILES = 2;
    static constexpr constant bool WEIGHTS = false;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes8::bytes<ROWS, COLS>(); }

    // What a lane loads of T tiles.
    struct Raw {
        uint q[Codes8::words(TILES)];
        uint d[TILES];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        constexpr uint PITCH = COLS / GROUP * 4;
        Codes8::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        load_entries<T, alignment(PITCH)>(plane_row<PITCH>(weights + scales<ROWS, COLS>(), row, step) +
                                              tile * (TILE / GROUP * 4) + lane / (GROUP / 8) * (4 * T),
                                          raw.d);
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        Codes::decode(raw.q, t, w);
    }

    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        return fma(as_type<float>(raw.d[t]), dot_run_pair(w, v, 0.0f), acc);
    }

    // Four weights from `col`, a multiple of 4.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, uint col) {
        constexpr uint PITCH = COLS / GROUP * 4;
        const Place p = find_columns<COLS, GROUP, TILES>(col);
        device const uchar* group = plane_row<COLS>(weights, row, 0) + p.tile * TILE;
        const uint codes = ((device const uint*)group)[(p.lane * p.count + p.t) * 2 + p.j];
        device const uchar* entries =
            plane_row<PITCH>(weights + scales<ROWS, COLS>(), row, 0) + p.tile * (TILE / GROUP * 4);
        const float scale = ((device const float*)entries)[p.lane / (GROUP / 8) * p.count + p.t];
        return (scale * Codes::UNIT) * e4m3_run(codes);
    }
};
