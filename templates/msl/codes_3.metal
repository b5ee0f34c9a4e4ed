// Codes of 3 bits: a plane of 2, then a plane of 1.
struct Codes3 {
    // Tiles in a whole group.
    static constexpr constant uint TILES = 4;

    static constexpr uint words(uint tiles) { return (tiles + 1) / 2 + 1; }

    // Bytes of the codes' planes.
    template <uint ROWS, uint COLS>
    static constexpr ulong bytes() { return align_plane(ulong(ROWS) * (COLS / 4)) + align_plane(ulong(ROWS) * (COLS / 8)); }

    // The words of a lane in T tiles from `tile` on.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread uint* words) {
        load_2_bits<T>(plane_row<COLS / 4>(weights, row, step) + tile * (TILE / 4), lane, words);
        device const uchar* high = weights + align_plane(ulong(ROWS) * (COLS / 4));
        words[words_of_2_bits(T)] = load_1_bit<T>(plane_row<COLS / 8>(high, row, step) + tile * (TILE / 8), lane);
    }

    static inline float2 pair(uint low, uint high) {
        return offset_codes((low & 0x00300030u) | (high & 0x00400040u), EXPONENT_BIT_4);
    }

    static constexpr uint words_of_2_bits(uint tiles) { return (tiles + 1) / 2; }

    // The sum of (code - ZERO) * x over a lane's 8 columns of tile t; `sum` is that of x alone.
    template <uint ZERO, uint T>
    static inline float dot(thread const uint* words, uint t, float4 v0, float4 v1, float sum) {
        const uint low = words[t / 2];
        const uint high = words[words_of_2_bits(T)];
        const uint first = 8 * (t % 2);
        const float4 a = float4(pair(move_bits(low, first, 4), move_bits(high, 4 * t, 6)),
                                pair(move_bits(low, first + 2, 4), move_bits(high, 4 * t + 1, 6)));
        const float4 b = float4(pair(move_bits(low, first + 4, 4), move_bits(high, 4 * t + 2, 6)),
                                pair(move_bits(low, first + 6, 4), move_bits(high, 4 * t + 3, 6)));
        return fma4(b, v1, fma4(a, v0, -float(64 + ZERO) * sum));
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        device const uchar* high = weights + align_plane(ulong(ROWS) * (COLS / 4));
        return four_of_2_bits(plane_row<COLS / 4>(weights, row, 0) + p.tile * (TILE / 4), p) +
               4.0f * four_of_1_bit(plane_row<COLS / 8>(high, row, 0) + p.tile * (TILE / 8), p);
    }
};
