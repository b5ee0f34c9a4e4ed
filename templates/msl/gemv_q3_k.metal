// needs: codes_3
// Q3_K: codes of 3 bits, less 4, times a scale of 6 bits, less 32, per 16 columns (its low 4 bits in one plane, the high
// 2 in another), times a half factor per 256.
struct Q3_K {
    typedef Codes3 Codes;
    static constexpr constant uint BLOCK = 16;
    static constexpr constant uint TILES = 4;
    static constexpr constant bool WEIGHTS = true;

    template <uint ROWS, uint COLS>
    static constexpr ulong low() { return Codes::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS>
    static constexpr ulong high() { return low<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 32)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factors() { return high<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 64)); }

    // What a lane loads of T tiles.
    struct Raw {
        uint q[Codes::words(TILES)];
        uint nibs;
        uint top;
        float d[TILES];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, raw.q);
        device const uchar* n = plane_row<COLS / 32>(weights + low<ROWS, COLS>(), row, step) + tile * 8;
        device const uchar* h = plane_row<COLS / 64>(weights + high<ROWS, COLS>(), row, step) + tile * 4;
        if (T == 4) {
            raw.nibs = ((device const ushort*)n)[lane / 2];
            raw.top = h[lane / 2];
        } else if (T == 2) {
            raw.nibs = n[lane / 2];
            raw.top = h[lane / 4] >> (lane / 2 % 2 * 4);
        } else {
            raw.nibs = n[lane / 4] >> (lane / 2 % 2 * 4);
            raw.top = h[lane / 8] >> (lane / 2 % 4 * 2);
        }
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factors<ROWS, COLS>(), row, step) + tile * 2, raw.d);
    }

    template <uint T>
    static inline void decode(thread const Raw& raw, uint t, thread float4* w) {
        Codes::decode<T>(raw.q, t, w);
        const float scale = raw.d[t] * (float((raw.nibs >> (4 * t) & 15) | (raw.top >> (2 * t) & 3) << 4) - 32.0f);
        scale_codes(w, scale, -4.0f * scale);
    }

    static inline float add(thread const Raw& raw, uint t, thread const float4* w, thread const float4* v, float sum,
                            float acc) {
        return dot_run_pair(w, v, acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_q3_k(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<Q3_K>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q3_k(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q3_K::BLOCK, Q3_K::TILES>(col);
    const float4 codes = Codes3::four<ROWS, COLS>(weights, row, p);
    device const uchar* n = plane_row<COLS / 32>(weights + Q3_K::low<ROWS, COLS>(), row, 0) + p.tile * 8;
    device const uchar* h = plane_row<COLS / 64>(weights + Q3_K::high<ROWS, COLS>(), row, 0) + p.tile * 4;
    device const uchar* d = plane_row<COLS / 128>(weights + Q3_K::factors<ROWS, COLS>(), row, 0) + p.tile * 2;
    const uint at = p.lane / 2 * p.count + p.t;
    const uint scale = (n[at / 2] >> (at % 2 * 4) & 15) | (h[at / 4] >> (at % 4 * 2) & 3) << 4;
    return load_half(d, p.t) * (float(scale) - 32.0f) * (codes - 4.0f);
}
