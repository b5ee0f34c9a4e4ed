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

// The levels of a lane's word of a tile. Single tiles may have lanes that stand in for others, so they read the table.
template <uint T>
inline void decode_levels(constant float* levels, float level, uint word, thread float4* w) {
    w[0] = T == 1 ? table_levels(levels, word) : shuffled_levels(level, word);
    w[1] = T == 1 ? table_levels(levels, word >> 8) : shuffled_levels(level, word >> 8);
}
