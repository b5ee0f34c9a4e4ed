// Codes of 8 bits.
struct Codes8 {
    // Tiles in a whole group.
    static constexpr constant uint TILES = 2;
    // The factor that codes are short of.
    static constexpr constant float UNIT = HALF_UNIT;

    static constexpr uint words(uint tiles) { return 2 * tiles; }

    // Bytes of the codes' planes.
    template <uint ROWS, uint COLS>
    static constexpr ulong bytes() { return align_plane(ulong(ROWS) * COLS); }

    // Makes the input of tile t fit where its codes are.
    static inline void place_input(uint t, thread float4* v) {

    }

    // The words of a lane in T tiles from `tile` on.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread uint* words) {
        load_words<8 * T>(plane_row<COLS>(weights, row, step) + tile * TILE + lane * (8 * T), words);
    }

    static inline float4 run(uint word) {
        const float2 even = small_halves(word & 0x00FF00FFu);
        const float2 odd = small_halves(word >> 8 & 0x00FF00FFu);
        return float4(even.x, odd.x, even.y, odd.y);
    }

    // The codes of a lane's 8 columns of tile t, in units.
    template <uint T>
    static inline void decode(thread const uint* words, uint t, thread float4* w) {
        w[0] = run(words[2 * t]);
        w[1] = run(words[2 * t + 1]);
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        device const uchar* group = plane_row<COLS>(weights, row, 0) + p.tile * TILE;
        return float4(((device const uchar4*)group)[(p.lane * p.count + p.t) * 2 + p.j]);
    }
};
