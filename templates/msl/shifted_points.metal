// needs: points_iq1_s
// IQ1_S's grid: points of eight coordinates -1, 0 and 1, as codes of 2 bits from 0 up, pair p of the eight at bit 2 p of the
// halves of a word; to each coordinate an eighth is added or, where a sign says so, taken from it.
//
// A lane's points in the T tiles of a group are a number: T points of 11 bits, then T bits. Its lowest 8 T bits lie with those
// of the other lanes, the 4 T above them behind these.
struct ShiftedPoints {
    // Codes are small halves, and scales too.
    static constexpr constant float UNIT = HALF_UNIT * HALF_UNIT;

    // Makes the input fit halves from bits 0, 2, 4 and 6 on.
    static inline void place_input(uint t, thread float4* v) {
        v[0] *= float4(1.0f, 1.0f, 0.25f, 0.25f);
        v[1] *= float4(0.0625f, 0.0625f, 0.015625f, 0.015625f);
    }
};

// The codes of a point, pair p at bit 2 p of the halves of a word.
inline uint shifted_codes(uint point) {
    const uint codes = Iq1_s_POINTS[point];
    return (codes & 0xFF) | (codes & 0xFF00) << 8;
}

// A point times a lane's placed columns, of which `sum` is the sum in units: the codes, less 1 and less or, where bit 31 of `sign` is 0,
// more an eighth, times 2^-24.
inline float dot_shifted(uint codes, uint sign, thread const float4* v, float sum) {
    const uint eighth = as_type<uint>(0.125f * HALF_UNIT * sum) ^ (sign & 0x80000000u);
    const float2 a = small_halves(codes & 0x00030003u);
    const float2 b = small_halves(codes & 0x000C000Cu);
    const float2 c = small_halves(codes & 0x00300030u);
    const float2 d = small_halves(codes & 0x00C000C0u);
    const float start = as_type<float>(eighth) - HALF_UNIT * sum;
    return fma4(float4(c, d), v[1], fma4(float4(a, b), v[0], start));
}

// Run j of a point; `sign` is 1 where an eighth is taken away.
inline float4 shifted_run(uint codes, uint j, uint sign) {
    codes >>= 4 * j;
    const float4 four = float4(codes & 3, codes >> 16 & 3, codes >> 2 & 3, codes >> 18 & 3);
    return four + (sign != 0 ? -1.125f : -0.875f);
}

// A lane's number of T points in the group that begins at `group`, its two parts. Fewer than four tiles fit the first.
template <uint T>
inline uint2 load_points(device const uchar* group, uint lane) {
    uint low;
    load_words<T>(group + lane * T, &low);
    const uint high = load_fields<T, 4>(group + 32 * T, lane);
    return T == 4 ? uint2(low, high) : uint2(low | high << (8 * T), 0);
}

// Point t of a number.
template <uint T>
inline uint point_of(uint2 number, uint t) {
    const uint at = 11 * t;
    return at < 22   ? extract_bits(number.x, at, 11)
           : at < 32 ? extract_bits(number.x >> at | number.y << (32 - at), 0, 11)
                     : extract_bits(number.y, at - 32, 11);
}

// The bit of tile t above the points of a number, as bit 31.
template <uint T>
inline uint bit_of(uint2 number, uint t) {
    return T == 4 ? number.y << (31 - 12 - t) : number.x << (31 - 11 * T - t);
}
