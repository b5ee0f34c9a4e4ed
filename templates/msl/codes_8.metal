// Codes of 8 bits, unsigned.
struct Codes8 {
    // Tiles in a whole group.
    static constexpr constant uint TILES = 2;

    static constexpr uint words(uint tiles) { return 2 * tiles; }

    // Bytes of the codes' planes.
    template <uint ROWS, uint COLS>
    static constexpr ulong bytes() { return align_plane(ulong(ROWS) * COLS); }

    // The words of a lane in T tiles from `tile` on.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread uint* words) {
        load_words<8 * T>(plane_row<COLS>(weights, row, step) + tile * TILE + lane * (8 * T), words);
    }

    // The sum of (code - ZERO) * x over a lane's 8 columns of tile t; `sum` is that of x alone.
    template <uint ZERO, uint T>
    static inline float dot(thread const uint* words, uint t, float4 v0, float4 v1, float sum) {
        const float4 a = float4(as_type<uchar4>(words[2 * t]));
        const float4 b = float4(as_type<uchar4>(words[2 * t + 1]));
        return fma4(b, v1, fma4(a, v0, -float(ZERO) * sum));
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        device const uchar* group = plane_row<COLS>(weights, row, 0) + p.tile * TILE;
        return float4(((device const uchar4*)group)[(p.lane * p.count + p.t) * 2 + p.j]);
    }
};
