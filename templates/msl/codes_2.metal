// Codes of 2 bits.
struct Codes2 {
    // Tiles in a whole group.
    static constexpr constant uint TILES = 4;

    static constexpr uint words(uint tiles) { return (tiles + 1) / 2; }

    // Bytes of the codes' planes.
    template <uint ROWS, uint COLS>
    static constexpr ulong bytes() { return align_plane(ulong(ROWS) * (COLS / 4)); }

    // The words of a lane in T tiles from `tile` on.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread uint* words) {
        load_2_bits<T>(plane_row<COLS / 4>(weights, row, step) + tile * (TILE / 4), lane, words);
    }

    static inline float2 pair_at_4(uint bits) { return offset_codes(bits & 0x00300030u, EXPONENT_BIT_4); }

    static inline float2 pair_at_6(uint bits) { return offset_codes(bits & 0x00C000C0u, 0x4C004C00u); }

    static inline float2 pair_at_8(uint bits) { return offset_codes(bits & 0x03000300u, 0x44004400u); }

    // The sum of (code - ZERO) * x over a lane's 8 columns of tile t; `sum` is that of x alone.
    template <uint ZERO, uint T>
    static inline float dot(thread const uint* words, uint t, float4 v0, float4 v1, float sum) {
        // Pairs at bits 4, 6 and 8 are read in place: those of the first tile after one shift, of the second after two.
        const uint word = words[t / 2];
        float4 a;
        float4 b;
        float4 offsets;
        if (t % 2 == 0) {
            a = float4(pair_at_4(word << 4), pair_at_6(word << 4));
            b = float4(pair_at_4(word), pair_at_6(word));
            offsets = float4(64.0f, 16.0f, 64.0f, 16.0f);
        } else {
            a = float4(pair_at_8(word), pair_at_4(word >> 6));
            b = float4(pair_at_6(word >> 6), pair_at_8(word >> 6));
            offsets = float4(4.0f, 64.0f, 16.0f, 4.0f);
        }
        const float4 pairs = float4(v0.x + v0.y, v0.z + v0.w, v1.x + v1.y, v1.z + v1.w);
        return fma4(b, v1, fma4(a, v0, -fma4(offsets, pairs, float(ZERO) * sum)));
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        return four_of_2_bits(plane_row<COLS / 4>(weights, row, 0) + p.tile * (TILE / 4), p);
    }
};
