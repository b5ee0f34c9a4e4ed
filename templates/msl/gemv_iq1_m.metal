// needs: points_iq1_s, shifted_points
// IQ1_M: a point of IQ1_S's grid, a byte, and a nibble of three more bits and the sign of an eighth that is added to
// each coordinate; per 256 columns four shorts, each of four scales of 3 bits (2 s + 1, for 16 columns) and a nibble of
// a half factor.
struct Iq1_m {
    typedef Codes2 Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong nibble_plane() { return align_plane(ulong(ROWS) * (COLS / 8)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong short_plane() { return nibble_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 16)); }

    // The factor times the scale of a lane's columns.
    static inline float scale(uint2 shorts, uint lane) {
        const uint low = (shorts.x >> 12 & 0xF) | (shorts.x >> 24 & 0xF0);
        const uint high = (shorts.y >> 4 & 0xF00) | (shorts.y >> 16 & 0xF000);
        const uint word = lane < 16 ? shorts.x : shorts.y;
        const uint s = word >> (lane / 8 % 2 * 16 + lane / 2 % 4 * 3) & 7;
        return float(as_type<half>(ushort(low | high))) * float(2 * s + 1);
    }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint points;
        load_words<T>(plane_row<COLS / 8>(weights, row, step) + tile * 32 + lane * T, &points);
        const uint nibs =
            load_fields<T, 4>(plane_row<COLS / 16>(weights + nibble_plane<ROWS, COLS>(), row, step) + tile * 16, lane);
        device const uint2* shorts =
            (device const uint2*)(plane_row<COLS / 32>(weights + short_plane<ROWS, COLS>(), row, step)) + tile;
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const uint nib = nibs >> (4 * t);
            const uint point = (points >> (8 * t) & 255) | (nib & 7) << 8;
            const float part = dot_shifted(Iq1_s_POINTS[point], nib >> 3 & 1, v + 2 * t, sums[t]);
            sum = fma(scale(shorts[t], lane), part, sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_iq1_m(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Iq1_m>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_iq1_m(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Iq1_m::BLOCK, Iq1_m::TILES>(col);
    const uint at = p.lane * p.count + p.t;
    const uint nib =
        one_field<4>(plane_row<COLS / 16>(weights + Iq1_m::nibble_plane<ROWS, COLS>(), row, 0) + p.tile * 16, p, p.lane);
    const uint point = (plane_row<COLS / 8>(weights, row, 0) + p.tile * 32)[at] | (nib & 7) << 8;
    device const uint2* shorts =
        (device const uint2*)(plane_row<COLS / 32>(weights + Iq1_m::short_plane<ROWS, COLS>(), row, 0)) + p.tile;
    return Iq1_m::scale(shorts[p.t], p.lane) * shifted_point(Iq1_s_POINTS[point], p.j, nib >> 3);
}
