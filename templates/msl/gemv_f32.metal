// needs: float_rows
// Rows of F32.
struct F32Rows {
    static constexpr constant uint COLUMNS = 4;
    static constexpr constant uint BYTES = 4;

    static inline float4 four(uint4 bits, uint) { return as_type<float4>(bits); }
    static inline float4 quad(device const uchar* p) { return *(device const float4*)p; }
    static inline float element(device const uchar* weights, ulong at) { return ((device const float*)weights)[at]; }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_f32(device const uchar* weights, device const float* x, uint row, uint part, uint lane, thread float* acc,
                     uint tokens = 1) {
    gemv_floats<F32Rows, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_f32(device const uchar* weights, uint row, uint col) {
    return load4_floats<F32Rows, ROWS, COLS>(weights, row, col);
}
