// needs: shifted_points, sums_iq1_s, ternary_sums
// Points of IQ1_S's grid by sums. What is taken by the last two columns has an eighth of all eight in it, of which entry 2 e adds
// one to entry e's sum and entry 2 e + 1 takes it away. A point's entries are a half word of a table in threadgroup memory: from bit 7 on that
// of columns 0 to 2, from bit 0 on that of 3 to 5, from bit 12 on that of 6 and 7.
struct ShiftedSums {
    static constexpr constant uint STEP = 2;
    static constexpr constant uint SUMS = 2 * THREE + 2 * TWO;
    // Scales are small halves.
    static constexpr constant float UNIT = HALF_UNIT;

    template <uint SIMDGROUPS>
    static inline void put_points(threadgroup float* points, uint simdgroup, uint lane) {
        for (uint i = simdgroup * LANES + lane; i < 2048; i += SIMDGROUPS * LANES) {
            ((threadgroup ushort*)points)[i] = Iq1_s_SUMS[i];
        }
    }

    static inline void put(device const float* x, threadgroup float* entry, uint part) {
        if (part < 2) {
            put_three(x + 3 * part, entry + part * THREE);
        } else {
            const float4 a = ((device const float4*)x)[0];
            const float4 b = ((device const float4*)x)[1];
            const float eighth = 0.125f * (sum4(a) + sum4(b));
            put_nine<2>(entry + 2 * THREE, eighth, b.z, b.w);
            put_nine<2>(entry + 2 * THREE + LANES, -eighth, b.z, b.w);
        }
    }

    // The sum by a point, whose number is from bit 1 on in `twice`; bit 7 of `lower` says that an eighth is taken away.
    static inline float sum(threadgroup const float* table, threadgroup const float* points, uint twice, uint lower, uint lane) {
        const uint entries = *(threadgroup const ushort*)((threadgroup const uchar*)points + (twice & 0xFFEu));
        const float first = entry_at(table, entry_bytes(entries, 31 << 7, lane));
        const float second = entry_at(table + THREE, entry_bytes(entries << 7, 31 << 7, lane));
        return first + second + entry_at(table + 2 * THREE, entry_bytes(entries >> 4, 15 << 8, lane) | (lower & 128));
    }
};

// A number of points moved so that point t is from bit 1 on.
template <uint T>
inline uint twice_point(uint2 number, uint t) {
    const uint at = 11 * t;
    return at < 22   ? move_bits(number.x, at, 1)
           : at < 32 ? number.x >> (at - 1) | number.y << (33 - at)
                     : move_bits(number.y, at - 32, 1);
}
