// Weights whose groups are points of a grid. A lane owns 8 columns in a row, as many as share a byte of signs. A
// point's coordinates are bytes of a table: they are masked into halves like codes of 8 bits, their signs put on top.
//
// The tables are constants, not copied into threadgroup memory: a threadgroup of a decode kernel has a few rows, hardly
// more bytes of weights than a table has.
//
// Products are FACTOR short of what `half_steps` makes scales short of.
template <uint FACTOR>
struct PointCodes {
    static constexpr constant float UNIT = float(FACTOR) * HALF_UNIT;

    static inline void place_input(uint t, thread float4* v) {}
};

// A factor times (s + 1/2) / 16, where the scale s has four bits: the fraction of a number from 1 up to 2.
inline float half_steps(float factor, uint s) {
    return fma(factor, as_type<float>(0x3F840000u + (s << 19)), -factor);
}

// Eight signs where `signed_bytes` takes them: columns 0, 1, 4 and 5 at bits 10, 11, 14 and 15, columns 2, 3, 6 and 7 16 higher;
// `signs << 10 | signs << 24` in one instruction.
inline uint spread_signs(uint signs) { return signs * 0x01000400u; }

// Four bytes, times 2^-24. Bits 14 and 15 of `signs` are those of the first two, bits 30 and 31 of the others.
inline float4 signed_bytes(uint bytes, uint signs) {
    const float2 even = small_halves((bytes & 0x00FF00FFu) | (signs << 1 & 0x80008000u));
    const float2 odd = small_halves((bytes >> 8 & 0x00FF00FFu) | (signs & 0x80008000u));
    return float4(even.x, odd.x, even.y, odd.y);
}

// Run j of a point as numbers, with its four of the eight spread signs.
inline float4 signed_run(uint bytes, uint j, uint signs) {
    return HALF_UNIT * signed_bytes(bytes, j == 0 ? signs << 4 : signs);
}

// Eight bytes with eight spread signs, times a lane's columns.
inline float dot_signed(uint2 bytes, uint signs, thread const float4* v) {
    return fma4(signed_bytes(bytes.y, signs), v[1], fma4(signed_bytes(bytes.x, signs << 4), v[0], 0.0f));
}
