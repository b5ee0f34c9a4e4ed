// needs: codes_4, levels
// MXFP4: a power of two (E8M0) for 32 values of 4 bits (E2M1).
constant float Mxfp4_LEVELS[16] = {
    0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, 0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f,
};

// 2^(e - 127); that of 0 is half of the smallest normal number.
inline float e8m0(uint e) { return as_type<float>(max(e << 23, 0x00400000u)); }

struct Mxfp4 {
    typedef LevelCodes Codes;
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes4::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint q[Codes4::words(T)];
        float d[T];
        Codes4::load<ROWS, COLS, T>(weights, row, step, tile, lane, q);
        device const uchar* e = plane_row<COLS / 32>(weights + scales<ROWS, COLS>(), row, step) + tile * 8 + lane / 4 * T;
        if (T == 4 && COLS / 32 % 4 == 0) {
            uint bytes;
            load_words<4>(e, &bytes);
            for (uint t = 0; t < T; ++t) {
                d[t] = e8m0(bytes >> (8 * t) & 255);
            }
        } else {
            for (uint t = 0; t < T; ++t) {
                d[t] = e8m0(e[t]);
            }
        }
        return dot_levels<T>(Mxfp4_LEVELS, lane, q, d, v);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_mxfp4(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Mxfp4>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_mxfp4(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Mxfp4::BLOCK, Mxfp4::TILES>(col);
    const uint4 codes = uint4(Codes4::four<ROWS, COLS>(weights, row, p));
    const float4 levels =
        float4(Mxfp4_LEVELS[codes.x], Mxfp4_LEVELS[codes.y], Mxfp4_LEVELS[codes.z], Mxfp4_LEVELS[codes.w]);
    device const uchar* e = plane_row<COLS / 32>(weights + Mxfp4::scales<ROWS, COLS>(), row, 0) + p.tile * 8;
    return e8m0(e[p.lane / 4 * p.count + p.t]) * levels;
}
