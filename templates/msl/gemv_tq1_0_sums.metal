// needs: ternary_sums
// TQ1_0 for matrices of many rows.
struct Tq1_0_Sums {
    static constexpr constant uint STEP = 4;
    static constexpr constant uint SUMS = 2 * THREE + TWO;
    static constexpr constant float UNIT = 1.0f;

    struct Raw {
        uint fives;
        uint threes;
        float d[4];
    };

    template <uint SIMDGROUPS>
    static inline void put_points(threadgroup float* points, uint simdgroup, uint lane) {}

    static inline void put(device const float* x, threadgroup float* entry, uint part) {
        if (part < 2) {
            put_three(x + 3 * part, entry + part * THREE);
        } else {
            put_nine<1>(entry + 2 * THREE, 0.0f, x[6], x[7]);
        }
    }

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        load_words<T>(plane_row<COLS / 8>(weights, row, step) + tile * 32 + lane * T, &raw.fives);
        raw.threes =
            Tq1_0::load_threes<T>(plane_row<COLS / 64 * 5>(weights + Tq1_0::three_plane<ROWS, COLS>(), row, step) + tile * 20, lane);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + Tq1_0::factor_plane<ROWS, COLS>(), row, step) + tile * 2, raw.d);
    }

    template <uint T>
    static inline float take(thread const Raw& raw, uint t, threadgroup const float* table, threadgroup const float*, uint lane,
                             float acc) {
        const uint five = extract_bits(raw.fives, 8 * t, 8);
        // 19 / 2^9 is so little more than 1 / 27 that no number of five digits is lifted over a multiple.
        const uint last = entry_bytes(five * 19 >> 2, 15 << 7, lane);
        const uint second = (five << 7) + 28 * 4 * lane - 27 * last;
        const uint first = entry_bytes(move_bits(raw.threes, 5 * t, 7), 31 << 7, lane);
        const float sum = entry_at(table, first) + entry_at(table + THREE, second) + entry_at(table + 2 * THREE, last);
        return fma(raw.d[t], sum, acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint SIMDGROUPS>
inline void gemv_tq1_0_sums(device const uchar* weights, device const float* x, threadgroup float* table, uint row,
                            uint part, uint simdgroup, uint lane, thread float* acc) {
    gemv_by_sums<Tq1_0_Sums, ROWS, COLS, NR, KS, SPLIT, SIMDGROUPS>(weights, x, table, row, part, simdgroup, lane, acc);
}
