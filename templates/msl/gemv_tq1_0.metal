// needs: base_3_digits
// TQ1_0: codes 0, 1 and 2, less 1, as digits of numbers in base 3. Of a lane's sixteen in two tiles the first five of each tile are a
// byte, the others a number of 10 bits; of a tile without a second one they are a number of 5 bits. Such numbers of a lane follow one
// another; their lowest 4 bits a tile lie before the others. A half factor per 256.
struct DigitCodes {
    static constexpr constant float UNIT = HALF_UNIT;

    // Makes the input fit halves from bits 0, 2 and 4 on.
    static inline void place_input(uint t, thread float4* v) {
        v[0] *= float4(1.0f, 1.0f, 0.25f, 0.25f);
        v[1] *= t % 2 == 0 ? float4(0.0625f, 1.0f, 1.0f, 0.25f) : float4(0.0625f, 0.25f, 0.0625f, 0.0625f);
    }
};

struct Tq1_0 {
    typedef DigitCodes Codes;
    static constexpr constant uint BLOCK = 8;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong other_plane() { return align_plane(ulong(ROWS) * (COLS / 8)); }

    template <uint ROWS, uint COLS>
    static constexpr ulong factor_plane() { return other_plane<ROWS, COLS>() + align_plane(ulong(ROWS) * (COLS / 64 * 5)); }

    // The numbers of a lane's other digits in the group that begins at `group`: of tiles t and t + 1, or of the only one.
    template <uint T>
    static inline void load_others(device const uchar* group, uint lane, thread uint* others) {
        const uint low = load_fields<T, 4>(group, lane);
        const uint high = load_fields<T, 1>(group + 16 * T, lane);
        if (T == 4) {
            others[0] = extract_bits(low, 0, 10);
            others[1] = low >> 10 | extract_bits(high, 0, 4) << 6;
        } else {
            others[0] = extract_bits(low, 0, 4 * T) | extract_bits(high, 0, T) << (4 * T);
        }
    }

    // The sum of (code - 1) * x over a lane's columns of the first or second of two tiles, in units; `sum` is that of x.
    static inline float dot_digits(uint five, uint others, bool second, thread const float4* v, float sum) {
        const float2 a = small_halves(five & 0x00030003u);
        const float2 b = small_halves(five & 0x000C000Cu);
        const float2 c = small_halves(five & 0x00300030u);
        const float2 d = small_halves(others & 0x00030003u);
        const float2 e = small_halves(others & 0x000C000Cu);
        const float2 f = small_halves(others & 0x00300030u);
        const float4 last = second ? float4(c.x, e.y, f.x, f.y) : float4(c.x, d.x, d.y, e.x);
        return fma4(last, v[1], fma4(float4(a, b), v[0], -sum));
    }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint fives;
        uint numbers[(T + 1) / 2];
        float d[T];
        load_words<T>(plane_row<COLS / 8>(weights, row, step) + tile * 32 + lane * T, &fives);
        load_others<T>(plane_row<COLS / 64 * 5>(weights + other_plane<ROWS, COLS>(), row, step) + tile * 20, lane, numbers);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + factor_plane<ROWS, COLS>(), row, step) + tile * 2, d);
        float sum = 0.0f;
        for (uint t = 0; t < T; t += 2) {
            const uint others = BASE_3_DIGITS[numbers[t / 2]];
            const uint five = BASE_3_DIGITS[extract_bits(fives, 8 * t, 8)];
            sum = fma(d[t], dot_digits(five, others, false, v + 2 * t, sums[t]), sum);
            if (T > 1) {
                const uint next = BASE_3_DIGITS[extract_bits(fives, 8 * t + 8, 8)];
                sum = fma(d[t + 1], dot_digits(next, others, true, v + 2 * t + 2, sums[t + 1]), sum);
            }
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_tq1_0(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Repeated<Tq1_0>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// The digits of a lane that are not the first five of a tile.
template <uint T>
inline uint other_digits(device const uchar* group, Place p) {
    uint numbers[(T + 1) / 2];
    Tq1_0::load_others<T>(group, p.lane, numbers);
    return BASE_3_DIGITS[numbers[p.t / 2]];
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_tq1_0(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Tq1_0::BLOCK, Tq1_0::TILES>(col);
    const uint five = BASE_3_DIGITS[(plane_row<COLS / 8>(weights, row, 0) + p.tile * 32)[p.lane * p.count + p.t]];
    const float d =
        load_half(plane_row<COLS / 128>(weights + Tq1_0::factor_plane<ROWS, COLS>(), row, 0) + p.tile * 2, p.t);
    float4 codes = float4(five & 3, five >> 16 & 3, five >> 2 & 3, five >> 18 & 3);
    if (p.j != 0) {
        device const uchar* group = plane_row<COLS / 64 * 5>(weights + Tq1_0::other_plane<ROWS, COLS>(), row, 0) + p.tile * 20;
        uint others = p.count == 4   ? other_digits<4>(group, p)
                      : p.count == 2 ? other_digits<2>(group, p)
                                     : other_digits<1>(group, p);
        codes = p.t % 2 == 0 ? float4(five >> 4 & 3, others & 3, others >> 16 & 3, others >> 2 & 3)
                             : float4(five >> 4 & 3, others >> 18 & 3, others >> 4 & 3, others >> 20 & 3);
    }
    return d * (codes - 1.0f);
}
