// needs: codes_2
// TQ1_0: eight codes 0, 1 and 2, less 1, as a number of five digits in base 3 (a byte) and one of three (a nibble, and a bit
// in another plane); a half factor per 256.

// The digits of a number below 243, 2 bits each, the first lowest.
constant ushort BASE_3_DIGITS[243] = {
    0x000, 0x001, 0x002, 0x004, 0x005, 0x006, 0x008, 0x009, 0x00a, 0x010, 0x011, 0x012, 0x014, 0x015, 0x016, 0x018,
    0x019, 0x01a, 0x020, 0x021, 0x022, 0x024, 0x025, 0x026, 0x028, 0x029, 0x02a, 0x040, 0x041, 0x042, 0x044, 0x045,
    0x046, 0x048, 0x049, 0x04a, 0x050, 0x051, 0x052, 0x054, 0x055, 0x056, 0x058, 0x059, 0x05a, 0x060, 0x061, 0x062,
    0x064, 0x065, 0x066, 0x068, 0x069, 0x06a, 0x080, 0x081, 0x082, 0x084, 0x085, 0x086, 0x088, 0x089, 0x08a, 0x090,
    0x091, 0x092, 0x094, 0x095, 0x096, 0x098, 0x099, 0x09a, 0x0a0, 0x0a1, 0x0a2, 0x0a4, 0x0a5, 0x0a6, 0x0a8, 0x0a9,
    0x0aa, 0x100, 0x101, 0x102, 0x104, 0x105, 0x106, 0x108, 0x109, 0x10a, 0x110, 0x111, 0x112, 0x114, 0x115, 0x116,
    0x118, 0x119, 0x11a, 0x120, 0x121, 0x122, 0x124, 0x125, 0x126, 0x128, 0x129, 0x12a, 0x140, 0x141, 0x142, 0x144,
    0x145, 0x146, 0x148, 0x149, 0x14a, 0x150, 0x151, 0x152, 0x154, 0x155, 0x156, 0x158, 0x159, 0x15a, 0x160, 0x161,
    0x162, 0x164, 0x165, 0x166, 0x168, 0x169, 0x16a, 0x180, 0x181, 0x182, 0x184, 0x185, 0x186, 0x188, 0x189, 0x18a,
    0x190, 0x191, 0x192, 0x194, 0x195, 0x196, 0x198, 0x199, 0x19a, 0x1a0, 0x1a1, 0x1a2, 0x1a4, 0x1a5, 0x1a6, 0x1a8,
    0x1a9, 0x1aa, 0x200, 0x201, 0x202, 0x204, 0x205, 0x206, 0x208, 0x209, 0x20a, 0x210, 0x211, 0x212, 0x214, 0x215,
    0x216, 0x218, 0x219, 0x21a, 0x220, 0x221, 0x222, 0x224, 0x225, 0x226, 0x228, 0x229, 0x22a, 0x240, 0x241, 0x242,
    0x244, 0x245, 0x246, 0x248, 0x249, 0x24a, 0x250, 0x251, 0x252, 0x254, 0x255, 0x256, 0x258, 0x259, 0x25a, 0x260,
    0x261, 0x262, 0x264, 0x265, 0x266, 0x268, 0x269, 0x26a, 0x280, 0x281, 0x282, 0x284, 0x285, 0x286, 0x288, 0x289,
    0x28a, 0x290, 0x291, 0x292, 0x294, 0x295, 0x296, 0x298, 0x299, 0x29a, 0x2a0, 0x2a1, 0x2a2, 0x2a4, 0x2a5, 0x2a6,
    0x2a8, 0x2a9, 0x2aa,
};

// Eight codes as Codes2 has those of a tile.
inline uint eight_digits(uint five, uint three) {
    return spread_short(BASE_3_DIGITS[five] | uint(BASE_3_DIGITS[three]) << 10);
}

struct Tq1_0 {
    typedef Codes2 Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong low() { return align_plane(ulong(ROWS) * (COLS / 8)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong high() { return low<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 16)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factors() { return high<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 64)); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint fives;
        float d[T];
        load_words<T>(plane_row<COLS / 8>(weights, row, step) + tile * 32 + lane * T, &fives);
        const uint nibs =
            load_fields<T, 4>(plane_row<COLS / 16>(weights + low<ROWS, COLS>(), row, step) + tile * 16, lane);
        const uint bits =
            load_fields<T, 1>(plane_row<COLS / 64>(weights + high<ROWS, COLS>(), row, step) + tile * 4, lane);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factors<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const uint word = eight_digits(fives >> (8 * t) & 255, (nibs >> (4 * t) & 15) | (bits >> t & 1) << 4);
            sum = fma(d[t], Codes2::dot<2, 1>(&word, 0, v + 2 * t, sums[t]), sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_tq1_0(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Tq1_0>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_tq1_0(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Tq1_0::BLOCK, Tq1_0::TILES>(col);
    const uint five = (plane_row<COLS / 8>(weights, row, 0) + p.tile * 32)[p.lane * p.count + p.t];
    device const uchar* n = plane_row<COLS / 16>(weights + Tq1_0::low<ROWS, COLS>(), row, 0) + p.tile * 16;
    device const uchar* h = plane_row<COLS / 64>(weights + Tq1_0::high<ROWS, COLS>(), row, 0) + p.tile * 4;
    device const uchar* d = plane_row<COLS / 128>(weights + Tq1_0::factors<ROWS, COLS>(), row, 0) + p.tile * 2;
    const uint three = one_field<4>(n, p, p.lane) | one_field<1>(h, p, p.lane) << 4;
    return load_half(d, p.t) * (four_codes(eight_digits(five, three), p.j, 3) - 1.0f);
}
