// needs: codes_4
// Codes of 4 bits that are floats of 2 bits of exponent and 1 of fraction (E2M1). Moved to where a half has exponent and fraction
// they are that number times 2^-14, subnormal ones too.
struct E2m1Codes {
    static constexpr constant float UNIT = 16384.0f;

    static inline void place_input(uint t, thread float4* v) {}

    // Two codes at the bottom of halves, times 2^-14.
    static inline float2 pair(uint bits) {
        return float2(as_type<half2>((bits << 12 & 0x80008000u) | (bits << 9 & 0x0E000E00u)));
    }

    // Pairs p and p + 1 at bits 0 and 4.
    static inline float4 run(uint word) { return float4(pair(word), pair(word >> 4)); }

    // The codes of a lane's 8 columns of a tile.
    static inline void decode(uint word, thread float4* w) {
        w[0] = run(word);
        w[1] = run(word >> 8);
    }

    // Four codes.
    static inline float4 four(uint4 codes) { return float4(pair(codes.x | codes.y << 16), pair(codes.z | codes.w << 16)); }
};
