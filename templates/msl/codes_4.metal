// Codes of 4 bits.
struct Codes4 {
    // Tiles in a whole group.
    static constexpr constant uint TILES = 4;
    // The factor that codes are short of.
    static constexpr constant float UNIT = HALF_UNIT;

    static constexpr uint words(uint tiles) { return tiles; }

    // Bytes of the codes' planes.
    template <uint ROWS, uint COLS>
    static constexpr ulong bytes() { return align_plane(ulong(ROWS) * (COLS / 2)); }

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
    }

    // Pairs p and p + 1 at bits 0 and 4.
    static inline float4 run(uint word) {
        return float4(small_halves(word & 0x000F000Fu), small_halves(word & 0x00F000F0u));
    }

    // The codes of a lane's 8 columns of tile t, in units.
    template <uint T>
    static inline void decode(thread const uint* words, uint t, thread float4* w) {
        w[0] = run(words[t]);
        w[1] = run(words[t] >> 8);
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        return four_of_4_bits(plane_row<COLS / 2>(weights, row, 0) + p.tile * (TILE / 2), p);
    }
};
