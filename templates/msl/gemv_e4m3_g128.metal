// needs: codes_8, e4m3
// E4M3 values with a float scale for 128 columns.
template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_e4m3_g128(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc, uint tokens = 1) {
    gemv_packed<Shared<E4m3<128>>, ROWS, COLS, NR, KS, SPLIT, TOKENS>(weights, x, row, part, lane, acc, tokens);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_e4m3_g128(device const uchar* weights, uint row, uint col) {
    return E4m3<128>::four<ROWS, COLS>(weights, row, col);
}
