// Weights whose groups are points of a grid. A lane owns 8 columns in a row, as many as share a byte of signs. A
// point's coordinates are bytes of a table: they are masked into halves like codes of 8 bits, their signs put on top.
//
// The tables are constants, not copied into threadgroup memory: a threadgroup of a decode kernel has a few rows, hardly
// more bytes of weights than a table has.
struct PointCodes {
    static constexpr constant float UNIT = HALF_UNIT;

    static inline void place_input(uint t, thread float4* v) {}
};

// Seven signs, and an eighth that makes the number of negative weights even.
inline uint even_signs(uint seven) {
    seven &= 127;
    return seven | (popcount(seven) & 1) << 7;
}

// Four bytes, times 2^-24. Bits 0 and 1 of `signs` are those of the first two, bits 16 and 17 of the others.
inline float4 signed_bytes(uint bytes, uint signs) {
    const float2 even = small_halves((bytes & 0x00FF00FFu) | (signs << 15 & 0x80008000u));
    const float2 odd = small_halves((bytes >> 8 & 0x00FF00FFu) | (signs << 14 & 0x80008000u));
    return float4(even.x, odd.x, even.y, odd.y);
}

// Four bytes as numbers, with the lowest four bits of `signs`.
inline float4 signed_point(uint bytes, uint signs) { return HALF_UNIT * signed_bytes(bytes, signs | signs << 14); }

// Eight bytes with eight signs, times a lane's columns.
inline float dot_signed(uint2 bytes, uint signs, thread const float4* v) {
    signs |= signs << 14;
    return fma4(signed_bytes(bytes.y, signs >> 4), v[1], fma4(signed_bytes(bytes.x, signs), v[0], 0.0f));
}
