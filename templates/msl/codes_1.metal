// Codes of 1 bits.
struct Codes1 {
    // Tiles in a whole group.
    static constexpr constant uint TILES = 4;

    static constexpr uint words(uint tiles) { return 1; }

    // Bytes of the codes' planes.
    template <uint ROWS, uint COLS>
    static constexpr ulong bytes() { return align_plane(ulong(ROWS) * (COLS / 8)); }

    // The words of a lane in T tiles from `tile` on.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread uint* words) {
        words[0] = load_1_bit<T>(plane_row<COLS / 8>(weights, row, step) + tile * (TILE / 8), lane);
    }

    static constexpr uint place(uint k) { return k < 4 ? k + 6 : k < 10 ? k : k - 6; }

    static constexpr float offset(uint k) { return float(1024 >> place(k)); }

    static inline float2 pair(uint word, uint k) {
        const uint bits = move_bits(word, k, place(k)) & (0x00010001u << place(k));
        return offset_codes(bits, (25 - place(k)) * 0x04000400u);
    }

    // The sum of (code - ZERO) * x over a lane's 8 columns of tile t; `sum` is that of x alone.
    template <uint ZERO, uint T>
    static inline float dot(thread const uint* words, uint t, float4 v0, float4 v1, float sum) {
        // Pairs at bits 4 to 9 are read in place, after at most one shift by 6.
        const float4 a = float4(pair(words[0], 4 * t), pair(words[0], 4 * t + 1));
        const float4 b = float4(pair(words[0], 4 * t + 2), pair(words[0], 4 * t + 3));
        const float4 offsets = float4(offset(4 * t), offset(4 * t + 1), offset(4 * t + 2), offset(4 * t + 3));
        const float4 pairs = float4(v0.x + v0.y, v0.z + v0.w, v1.x + v1.y, v1.z + v1.w);
        return fma4(b, v1, fma4(a, v0, -fma4(offsets, pairs, float(ZERO) * sum)));
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        return four_of_1_bit(plane_row<COLS / 8>(weights, row, 0) + p.tile * (TILE / 8), p);
    }
};
