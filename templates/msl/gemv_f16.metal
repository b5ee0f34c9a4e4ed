// needs: float_rows
// Rows of F16.
struct F16Rows {
    static constexpr constant uint COLUMNS = 8;
    static constexpr constant uint BYTES = 2;

    static inline float4 floats(uint2 bits) { return float4(as_type<half4>(bits)); }

    static inline float4 four(uint4 bits, uint q) { return floats(q == 0 ? uint2(bits.x, bits.y) : uint2(bits.z, bits.w)); }
    static inline float4 quad(device const uchar* p) { return floats(*(device const uint2*)p); }
    static inline float element(device const uchar* weights, ulong at) { return float(((device const half*)weights)[at]); }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_f16(device const uchar* weights, device const float* x, uint row, uint part, uint lane, thread float* acc,
                     uint tokens = 1) {
    gemv_floats<F16Rows, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_f16(device const uchar* weights, uint row, uint col) {
    return load4_floats<F16Rows, ROWS, COLS>(weights, row, col);
}
