// needs: shifted_sums
// IQ1_S for matrices of many rows.
struct Iq1_s_Sums : ShiftedSums {
    struct Raw {
        uint2 points;
        uint numbers[2];
        float d[4];
    };

    template <uint ROWS, uint COLS, uint T>
    static inline void load(device const uchar* weights, uint row, uint step, uint tile, uint lane, thread Raw& raw) {
        device const uchar* group = plane_row<COLS / 16 * 3>(weights, row, step) + tile * 48;
        uint low;
        uint words[(T + 1) / 2];
        load_words<T>(group + lane * T, &low);
        load_words<2 * T>(group + 32 * T + lane / 4 * (2 * T), words);
        // Among the words of four lanes are the lane's own 4 T bits.
        const uint word = T == 4 && lane & 2 ? words[T / 4] : words[0];
        const uint high = extract_bits(word >> (T == 4 ? lane % 2 * 16 : lane % 4 * (4 * T)), 0, 4 * T);
        raw.points = T == 4 ? uint2(low, high) : uint2(low | high << (8 * T), 0);
        Iq1_s::numbers_of<T>(words, raw.numbers);
        load_halves<T, alignment(COLS / 128)>(
            plane_row<COLS / 128>(weights + Iq1_s::factor_plane<ROWS, COLS>(), row, step) + tile * 2, raw.d);
    }

    template <uint T>
    static inline float take(thread const Raw& raw, uint t, threadgroup const float* table, threadgroup const float* points,
                             uint lane, float acc) {
        const uint number = raw.numbers[t / 2];
        const float2 scales = small_halves((number << 1 & 0x000E000Eu) | 0x00010001u);
        const float part = sum(table, points, twice_point<T>(raw.points, t), move_bits(number, 3 + t % 2 * 16, 7), lane);
        return fma(raw.d[t] * (t % 2 == 0 ? scales.x : scales.y), part, acc);
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint SIMDGROUPS>
inline void gemv_iq1_s_sums(device const uchar* weights, device const float* x, threadgroup float* table, uint row,
                            uint part, uint simdgroup, uint lane, thread float* acc) {
    gemv_by_sums<Iq1_s_Sums, ROWS, COLS, NR, KS, SPLIT, SIMDGROUPS>(weights, x, table, row, part, simdgroup, lane, acc);
}
