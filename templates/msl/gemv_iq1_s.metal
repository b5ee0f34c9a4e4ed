// needs: shifted_points
// IQ1_S: a point of eight columns in 11 bits; above its points four lanes have a number of 4 bits a tile: the scale of 32 columns
// (2 s + 1) in 3 bits and the sign of an eighth that is added to each coordinate; a half factor per 256.
struct Iq1_s {
    typedef ShiftedPoints Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong factor_plane() { return align_plane(ulong(ROWS) * (COLS / 16 * 3)); }

    // The numbers of four lanes, of which `words` are the upper parts: of tiles t and t + 1 at bits 0 and 16.
    template <uint T>
    static inline void numbers_of(thread const uint* words, thread uint* numbers) {
        if (T == 4) {
            numbers[0] = words[0] >> 12;
            numbers[1] = words[1] >> 12;
        } else if (T == 2) {
            numbers[0] = (words[0] >> 6 & 0x00030003u) | (words[0] >> 12 & 0x000C000Cu);
        } else {
            numbers[0] = (words[0] >> 3 & 1) | (words[0] >> 6 & 2) | (words[0] >> 9 & 4) | (words[0] >> 12 & 8);
        }
    }

    template <uint T>
    static inline void load_numbers(device const uchar* group, uint lane, thread uint* numbers) {
        uint words[(T + 1) / 2];
        load_words<2 * T>(group + 32 * T + lane / 4 * (2 * T), words);
        numbers_of<T>(words, numbers);
    }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        device const uchar* group = plane_row<COLS / 16 * 3>(weights, row, step) + tile * 48;
        uint numbers[(T + 1) / 2];
        float d[T];
        const uint2 points = load_points<T>(group, lane);
        load_numbers<T>(group, lane, numbers);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factor_plane<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const uint number = numbers[t / 2];
            const float2 scales = small_halves((number << 1 & 0x000E000Eu) | 0x00010001u);
            const uint sign = number << (28 - t % 2 * 16);
            const float part = dot_shifted(shifted_codes(point_of<T>(points, t)), sign, v + 2 * t, sums[t]);
            sum = fma(d[t] * (t % 2 == 0 ? scales.x : scales.y), part, sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_iq1_s(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Iq1_s>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// One tile of a group of T.
template <uint T>
inline float4 load4_iq1_s_of(device const uchar* group, Place p, float d) {
    uint numbers[(T + 1) / 2];
    const uint2 points = load_points<T>(group, p.lane);
    Iq1_s::load_numbers<T>(group, p.lane, numbers);
    const uint number = numbers[p.t / 2] >> (p.t % 2 * 16) & 15;
    const uint codes = shifted_codes(point_of<T>(points, p.t));
    return d * float((number << 1 & 14) | 1) * shifted_run(codes, p.j, number >> 3);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_iq1_s(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Iq1_s::BLOCK, Iq1_s::TILES>(col);
    device const uchar* group = plane_row<COLS / 16 * 3>(weights, row, 0) + p.tile * 48;
    const float d =
        load_half(plane_row<COLS / 128>(weights + Iq1_s::factor_plane<ROWS, COLS>(), row, 0) + p.tile * 2, p.t);
    return p.count == 4   ? load4_iq1_s_of<4>(group, p, d)
           : p.count == 2 ? load4_iq1_s_of<2>(group, p, d)
                          : load4_iq1_s_of<1>(group, p, d);
}
