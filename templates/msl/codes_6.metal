// Codes of 6 bits: a plane of 4, then a plane of 2.
struct Codes6 {
    // Tiles in a whole group.
    static constexpr constant uint TILES = 4;
    // The factor that codes are short of.
    static constexpr constant float UNIT = HALF_UNIT;

    static constexpr uint words(uint tiles) { return tiles + (tiles + 1) / 2; }

    // Bytes of the codes' planes.
    template <uint ROWS, uint COLS>
    static constexpr ulong bytes() { return align_plane(ulong(ROWS) * (COLS / 2)) + align_plane(ulong(ROWS) * (COLS / 4)); }

    // Makes the input of tile t fit where its codes are.
    static inline void place_input(uint t, thread float4* v) {
        v[0] = scale_high_pair(v[0]);
        v[1] = scale_high_pair(v[1]);
    }

    // The words of a lane in T tiles from `tile` on.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread uint* words) {
        load_words<4 * T>(plane_row<COLS / 2>(weights, row, step) + tile * (TILE / 2) + lane * (4 * T), words);
        device const uchar* high = weights + align_plane(ulong(ROWS) * (COLS / 2));
        load_2_bits<T>(plane_row<COLS / 4>(high, row, step) + tile * (TILE / 4), lane, words + T);
    }

    // Pairs p and p + 1 of nibbles at bits 0 and 4, with their upper bits at bits 4 and 8.
    static inline float4 run(uint low, uint high) {
        return float4(small_halves((low & 0x000F000Fu) | (high & 0x00300030u)),
                      small_halves((low & 0x00F000F0u) | (high & 0x03000300u)));
    }

    // The codes of a lane's 8 columns of tile t, in units.
    template <uint T>
    static inline void decode(thread const uint* words, uint t, thread float4* w) {
        const uint high = words[T + t / 2];
        w[0] = run(words[t], high << (4 - t % 2 * 2));
        w[1] = run(words[t] >> 8, high >> (4 + t % 2 * 2));
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        device const uchar* high = weights + align_plane(ulong(ROWS) * (COLS / 2));
        return four_of_4_bits(plane_row<COLS / 2>(weights, row, 0) + p.tile * (TILE / 2), p) +
               16.0f * four_of_2_bits(plane_row<COLS / 4>(high, row, 0) + p.tile * (TILE / 4), p);
    }
};
