// Scales and minimums of Q4_K and Q5_K: 6 bits each per 32 columns, in two planes (a byte with the scale and the low 2
// bits of the minimum; a nibble with its high 4 bits), then half factors of both per 256 columns.
struct KScales {
    template <uint ROWS, uint COLS>
    static constexpr ulong nibbles() { return align_plane(ulong(ROWS) * (COLS / 32)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factors() {
        return nibbles<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 64));
    }

    // The bytes and nibbles of a lane's block in T tiles, and the factors of the tiles.
    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* planes, uint row, uint step, uint tile, uint lane,
                            thread uint* bytes, thread uint* nibs, thread float* d) {
        load_words<T>(plane_row<COLS / 32>(planes, row, step) + tile * 8 + lane / 4 * T, bytes);
        device const uchar* n = plane_row<COLS / 64>(planes + nibbles<ROWS, COLS>(), row, step) + tile * 4;
        if (T == 1) {
            nibs[0] = n[lane / 8] >> (lane & 4);
        } else {
            load_words<(T + 1) / 2>(n + lane / 4 * (T / 2), nibs);
        }
        load_halves<2 * T, alignment(COLS / 64)>(
            plane_row<COLS / 64>(planes + factors<ROWS, COLS>(), row, step) + tile * 4, d);
    }

    // Scale and minimum of tile t, times the tile's factors.
    static inline float2 scale_and_minimum(uint bytes, uint nibs, uint t, float scale_factor, float minimum_factor) {
        // Those of tiles 0 and 1 as low halves, of 2 and 3 as high ones.
        const uint spread = nibs | nibs << 8;
        const float2 scales = small_halves(bytes >> (t % 2 * 8) & 0x003F003Fu);
        const float2 minimums = small_halves((bytes >> (t % 2 * 8 + 6) & 0x00030003u) |
                                             (move_bits(spread, t % 2 * 4, 2) & 0x003C003Cu));
        return float2(HALF_UNIT * scale_factor * (t < 2 ? scales.x : scales.y),
                      HALF_UNIT * minimum_factor * (t < 2 ? minimums.x : minimums.y));
    }

    // Scale and minimum of one block.
    template <uint ROWS, uint COLS>
    static inline float2 one(device const uchar* planes, uint row, Place p) {
        const uint at = p.lane / 4 * p.count + p.t;
        const uint byte = (plane_row<COLS / 32>(planes, row, 0) + p.tile * 8)[at];
        device const uchar* n = plane_row<COLS / 64>(planes + nibbles<ROWS, COLS>(), row, 0) + p.tile * 4;
        const uint nib = n[at / 2] >> (at % 2 * 4);
        device const uchar* d = plane_row<COLS / 64>(planes + factors<ROWS, COLS>(), row, 0) + (p.tile + p.t) * 4;
        return scale_and_minimum(byte, nib, 0, load_half(d, 0), load_half(d, 1));
    }
};
