// Affine quantisation: scale * code + bias per GROUP columns. C is CodesN; scales and biases are pairs of halves, or with BF16
// of bfloats. With ZEROS the second of a pair is the code that stands for 0.
template <typename C, uint GROUP, bool BF16, bool ZEROS, uint GROUP_TILES>
struct Affine {
    typedef C Codes;
    static constexpr constant uint BLOCK = GROUP;
    static constexpr constant uint TILES = GROUP_TILES;
    static constexpr constant bool WEIGHTS = false;

    static inline float2 scale_and_bias(uint bits) {
        const float2 pair = BF16 ? float2(as_type<float>(bits << 16), as_type<float>(bits & 0xFFFF0000u))
                                 : float2(as_type<half2>(bits));
        return ZEROS ? float2(pair.x, -pair.x * pair.y) : pair;
    }

    // What a lane loads of T tiles.
    struct Raw {
        uint q[C::words(GROUP_TILES)];
        uint d[GROUP_TILES];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        constexpr uint PITCH = COLS / GROUP * 4;
        C::template load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        load_entries<T, alignment(PITCH)>(plane_row<PITCH>(weights + C::template bytes<ROWS, COLS>(), row, step) +
                                              tile * (TILE / GROUP * 4) + lane / (GROUP / 8) * (4 * T),
                                          raw.d);
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        C::template decode<T>(raw.q, t, w);
    }

    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        const float2 scale = scale_and_bias(raw.d[t]);
        return fma(scale.y, sum, fma(scale.x, dot_run_pair(w, v, 0.0f), acc));
    }
};

template <typename C, uint GROUP, bool BF16, bool ZEROS, uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT,
          uint TOKENS = 1>
inline void gemv_affine(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                        thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Affine<C, GROUP, BF16, ZEROS, C::TILES>>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part,
                                                                                                   lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <typename C, uint GROUP, bool BF16, bool ZEROS, uint ROWS, uint COLS>
inline float4 load4_affine(device const uchar* weights, uint row, uint col) {
    constexpr uint PITCH = COLS / GROUP * 4;
    const Place p = find_columns<COLS, GROUP, C::TILES>(col);
    device const uchar* pairs =
        plane_row<PITCH>(weights + C::template bytes<ROWS, COLS>(), row, 0) + p.tile * (TILE / GROUP * 4);
    const uint bits = ((device const uint*)pairs)[p.lane / (GROUP / 8) * p.count + p.t];
    const float2 scale = Affine<C, GROUP, BF16, ZEROS, C::TILES>::scale_and_bias(bits);
    return scale.x * C::template four<ROWS, COLS>(weights, row, p) + scale.y;
}
