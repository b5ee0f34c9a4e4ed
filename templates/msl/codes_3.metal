// Codes of 3 bits: a plane of 2, then a plane of 1.
struct Codes3 {
    // Tiles in a whole group.
    static constexpr constant uint TILES = 4;
    // The factor that codes are short of.
    static constexpr constant float UNIT = HALF_UNIT;

    static constexpr uint words(uint tiles) { return (tiles + 1) / 2 + 1; }

    // Bytes of the codes' planes.
    template <uint ROWS, uint COLS>
    static constexpr ulong bytes() { return align_plane(ulong(ROWS) * (COLS / 4)) + align_plane(ulong(ROWS) * (COLS / 8)); }

    // Makes the input of tile t fit where its codes are.
    static inline void place_input(uint t, thread float4* v) {
        v[0] = scale_high_pair(v[0]);
        v[1] = scale_high_pair(v[1]);
    }

    // The words of a lane in T tiles from `tile` on.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread uint* words) {
        load_2_bits<T>(plane_row<COLS / 4>(weights, row, step) + tile * (TILE / 4), lane, words);
        device const uchar* high = weights + align_plane(ulong(ROWS) * (COLS / 4));
        words[(T + 1) / 2] = load_1_bit<T>(plane_row<COLS / 8>(high, row, step) + tile * (TILE / 8), lane);
    }

    // Pairs p and p + 1 of 2 bits at bits 0 and 4, with their third bits at bits 2 and 6.
    static inline float4 run(uint low, uint high) {
        return float4(small_halves((low & 0x00030003u) | (high & 0x00040004u)),
                      small_halves((low & 0x00300030u) | (high & 0x00400040u)));
    }

    // The codes of a lane's 8 columns of tile t, in units.
    template <uint T>
    static inline void decode(thread const uint* words, uint t, thread float4* w) {
        const uint low = words[t / 2] >> (t % 2 * 2);
        const uint high = words[(T + 1) / 2];
        w[0] = run(low, move_bits(high, t, 2));
        w[1] = run(low >> 8, high >> (6 + t));
    }

    // The four codes of a run.
    template <uint ROWS, uint COLS>
    static inline float4 four(device const uchar* weights, uint row, Place p) {
        device const uchar* high = weights + align_plane(ulong(ROWS) * (COLS / 4));
        return four_of_2_bits(plane_row<COLS / 4>(weights, row, 0) + p.tile * (TILE / 4), p) +
               4.0f * four_of_1_bit(plane_row<COLS / 8>(high, row, 0) + p.tile * (TILE / 8), p);
    }
};
