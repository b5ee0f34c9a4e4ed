// needs: shifted_points
// IQ1_M: a point of IQ1_S's grid in 11 bits, and the sign of an eighth that is added to each coordinate; a scale of 3 bits
// (2 s + 1) per 16 columns, of which a block's in the tiles of a group are a number: its lowest 2 bits a tile lie before the others; a
// half factor per 256.
struct Iq1_m {
    typedef ShiftedPoints Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong scale_plane() { return align_plane(ulong(ROWS) * (COLS / 16 * 3)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factor_plane() { return scale_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 128 * 3)); }

    // The scales of a lane's columns, 3 bits a tile.
    template <uint T>
    static inline uint load_scales(device const uchar* group, uint lane) {
        const uint low = load_fields<T, 2>(group, lane / 2) & ((1 << (2 * T)) - 1);
        const uint high = load_fields<T, 1>(group + 4 * T, lane / 2) & ((1 << T) - 1);
        return low | high << (2 * T);
    }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        float d[T];
        const uint2 points = load_points<T>(plane_row<COLS / 16 * 3>(weights, row, step) + tile * 48, lane);
        const uint scales = load_scales<T>(
            plane_row<COLS / 128 * 3>(weights + scale_plane<ROWS, COLS>(), row, step) + tile * 6, lane) << 1;
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factor_plane<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const half scale = as_type<half>(ushort((scales >> (3 * t) & 14) | 1));
            const float part =
                dot_shifted(shifted_codes(point_of<T>(points, t)), bit_of<T>(points, t), v + 2 * t, sums[t]);
            sum = fma(d[t] * float(scale), part, sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_iq1_m(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Iq1_m>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// One tile of a group of T, without the factor.
template <uint T>
inline float4 load4_iq1_m_of(device const uchar* points, device const uchar* scales, Place p) {
    const uint2 number = load_points<T>(points, p.lane);
    const uint scale = Iq1_m::load_scales<T>(scales, p.lane) >> (3 * p.t) & 7;
    const uint codes = shifted_codes(point_of<T>(number, p.t));
    return float(2 * scale + 1) * shifted_run(codes, p.j, bit_of<T>(number, p.t) >> 31);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_iq1_m(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Iq1_m::BLOCK, Iq1_m::TILES>(col);
    device const uchar* points = plane_row<COLS / 16 * 3>(weights, row, 0) + p.tile * 48;
    device const uchar* scales =
        plane_row<COLS / 128 * 3>(weights + Iq1_m::scale_plane<ROWS, COLS>(), row, 0) + p.tile * 6;
    const float d =
        load_half(plane_row<COLS / 128>(weights + Iq1_m::factor_plane<ROWS, COLS>(), row, 0) + p.tile * 2, p.t);
    const float4 four = p.count == 4   ? load4_iq1_m_of<4>(points, scales, p)
                        : p.count == 2 ? load4_iq1_m_of<2>(points, scales, p)
                                       : load4_iq1_m_of<1>(points, scales, p);
    return d * four;
}
