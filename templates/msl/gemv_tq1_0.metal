// needs: base_3_digits
// TQ1_0: codes 0, 1 and 2, less 1, as digits of numbers in base 3. Of a lane's eight in a tile the last five are a byte, the first
// three a number of 5 bits. Such numbers of a lane follow one another; their lowest 4 bits a tile lie before the others. A half factor
// per 256.
struct DigitCodes {
    static constexpr constant float UNIT = HALF_UNIT;

    // Makes the input fit halves: of the first three from bit 0, 0 and 2 on, of the others from 0, 0, 2, 2 and 4.
    static inline void place_input(uint t, thread float4* v) {
        v[0] *= float4(1.0f, 1.0f, 0.25f, 1.0f);
        v[1] *= float4(1.0f, 0.25f, 0.25f, 0.0625f);
    }
};

struct Tq1_0 {
    typedef DigitCodes Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong three_plane() { return align_plane(ulong(ROWS) * (COLS / 8)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factor_plane() { return three_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 64 * 5)); }

    // A lane's numbers of three digits in the group that begins at `group`, 5 bits a tile; above them may be more.
    template <uint T>
    static inline uint load_threes(device const uchar* group, uint lane) {
        const uint low = load_fields<T, 4>(group, lane);
        return (T == 4 ? low : extract_bits(low, 0, 4 * T)) | load_fields<T, 1>(group + 16 * T, lane) << (4 * T);
    }

    // The sum of (code - 1) * x over a lane's columns of a tile, in units; `sum` is that of x.
    static inline float dot_digits(uint three, uint five, thread const float4* v, float sum) {
        const float2 a = small_halves(three & 0x00030003u);
        const float2 b = small_halves(three & 0x000C000Cu);
        const float2 c = small_halves(five & 0x00030003u);
        const float2 d = small_halves(five & 0x000C000Cu);
        const float2 e = small_halves(five & 0x00300030u);
        return fma4(float4(c.y, d.x, d.y, e.x), v[1], fma4(float4(a.x, a.y, b.x, c.x), v[0], -sum));
    }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint fives;
        float d[T];
        load_words<T>(plane_row<COLS / 8>(weights, row, step) + tile * 32 + lane * T, &fives);
        const uint threes =
            load_threes<T>(plane_row<COLS / 64 * 5>(weights + three_plane<ROWS, COLS>(), row, step) + tile * 20, lane);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factor_plane<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const uint three = BASE_3_DIGITS[extract_bits(threes, 5 * t, 5)];
            const uint five = BASE_3_DIGITS[extract_bits(fives, 8 * t, 8)];
            sum = fma(d[t], dot_digits(three, five, v + 2 * t, sums[t]), sum);
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
    device const uchar* group = plane_row<COLS / 64 * 5>(weights + Tq1_0::three_plane<ROWS, COLS>(), row, 0) + p.tile * 20;
    const uint five = BASE_3_DIGITS[(plane_row<COLS / 8>(weights, row, 0) + p.tile * 32)[p.lane * p.count + p.t]];
    const float d =
        load_half(plane_row<COLS / 128>(weights + Tq1_0::factor_plane<ROWS, COLS>(), row, 0) + p.tile * 2, p.t);
    if (p.j != 0) {
        return d * (float4(five >> 16 & 3, five >> 2 & 3, five >> 18 & 3, five >> 4 & 3) - 1.0f);
    }
    const uint threes = p.count == 4   ? Tq1_0::load_threes<4>(group, p.lane)
                        : p.count == 2 ? Tq1_0::load_threes<2>(group, p.lane)
                                       : Tq1_0::load_threes<1>(group, p.lane);
    const uint three = BASE_3_DIGITS[extract_bits(threes, 5 * p.t, 5)];
    return d * (float4(three & 3, three >> 16 & 3, three >> 2 & 3, five & 3) - 1.0f);
}
