// Codes of 4 bits that stand for levels.
struct LevelCodes {
    static constexpr constant float UNIT = 1.0f;

    static inline void place_input(uint t, thread float4* v) {}
};

inline uint4 level_codes(uint bits) { return uint4(bits & 15, bits >> 16 & 15, bits >> 4 & 15, bits >> 20 & 15); }

inline float4 table_levels(constant float* levels, uint bits) {
    const uint4 c = level_codes(bits);
    return float4(levels[c.x], levels[c.y], levels[c.z], levels[c.w]);
}

// Lane i of the first sixteen holds level i.
inline float4 shuffled_levels(float level, uint bits) {
    const uint4 c = level_codes(bits);
    return float4(simd_shuffle(level, ushort(c.x)), simd_shuffle(level, ushort(c.y)),
                  simd_shuffle(level, ushort(c.z)), simd_shuffle(level, ushort(c.w)));
}

// The levels of a lane's words in T tiles, times its columns of the input, scaled by d. Single tiles may have lanes that
// stand in for others, so they read the table.
template <uint T>
inline float dot_levels(constant float* levels, uint lane, thread const uint* words, thread const float* d,
                        thread const float4* v) {
    const float level = levels[lane % 16];
    float sum = 0.0f;
    for (uint t = 0; t < T; ++t) {
        const float4 a = T == 1 ? table_levels(levels, words[t]) : shuffled_levels(level, words[t]);
        const float4 b = T == 1 ? table_levels(levels, words[t] >> 8) : shuffled_levels(level, words[t] >> 8);
        sum = fma(d[t], fma4(b, v[2 * t + 1], fma4(a, v[2 * t], 0.0f)), sum);
    }
    return sum;
}
