// Codes of 6 bits: a plane of 4, then a plane of 2.
struct Codes6 {
    // Tiles in a whole group.
    static constexpr constant uint TILES = 4;

    static constexpr uint words(uint tiles) { return tiles + (tiles + 1) / 2; }

    // Bytes of the codes' planes.
    template <uint ROWS, uint COLS>
    static constexpr ulong bytes() { return align_plane(ulong(ROWS) * (COLS / 2)) + align_plane(ulong(ROWS) * (COLS / 4)); }

    // The words of a lane in T tiles from `tile` on.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread uint* words) {
        load_words<4 * T>(plane_row<COLS / 2>(weights, row, step) + tile * (TILE / 2) + lane * (4 * T), words);
        device const uchar* high = weights + align_plane(ulong(ROWS) * (COLS / 2));
        load_2_bits<T>(plane_row<COLS / 4>(high, row, step) + tile * (TILE / 4), lane, words + T);
    }

    static inline float2 pair(uint low, uint high) {
        return offset_codes((low & 0x00F000F0u) | (high & 0x03000300u), EXPONENT_BIT_4);
    }

    // The sum of (code - ZERO) * x over a lane's 8 columns of tile t; `sum` is that of x alone.
    template <uint ZERO, uint T>
    static inline float dot(thread const uint* words, uint t, float4 v0, float4 v1, float sum) {
        const uint low = words[t];
        const uint high = words[T + t / 2];
        const uint first = 8 * (t % 2);
        const float4 a = float4(pair(low << 4, move_bits(high, first, 8)), pair(low, move_bits(high, first + 2, 8)));
        const float4 b =
            float4(pair(low >> 4, move_bits(high, first + 4, 8)), pair(low >> 8, move_bits(high, first + 6, 8)));
        return fma4(b, v1, fma4(a, v0, -float(64 + ZERO) * sum));
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        device const uchar* group = plane_row<COLS / 2>(weights, row, 0) + p.tile * (TILE / 2);
        device const uchar* high = weights + align_plane(ulong(ROWS) * (COLS / 2));
        const uint bits = ((device const uint*)group)[p.lane * p.count + p.t] >> (8 * p.j);
        return float4(bits & 15, bits >> 16 & 15, bits >> 4 & 15, bits >> 20 & 15) +
               16.0f * four_of_2_bits(plane_row<COLS / 4>(high, row, 0) + p.tile * (TILE / 4), p);
    }
};
