// Q8_0: a half scale for 32 signed bytes. Planes: codes (8 bytes a lane and tile), scales.
struct Q8_0 {
    static constexpr constant uint BLOCK = 32;
    static constexpr constant uint TILES = 2;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return align_plane(ulong(ROWS) * COLS); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint q[2 * T];
        float d[T];
        load_words<8 * T>(plane_row<COLS>(weights, row, step) + tile * TILE + lane * (8 * T), q);
        load_halves<T, COLS / 16 % 4 == 0 ? 4 : 2>(
            plane_row<COLS / 16>(weights + scales<ROWS, COLS>(), row, step) + tile * 16 + lane / 4 * (2 * T), d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            const float part = fma4(float4(as_type<char4>(q[2 * t])), v[2 * t], 0.0f);
            sum = fma(d[t], fma4(float4(as_type<char4>(q[2 * t + 1])), v[2 * t + 1], part), sum);
        }
        return sum;
    }
};

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT>
inline void gemv_q8_0(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc) {
    gemv_packed<Q8_0, ROWS, COLS, NR, KS, SPLIT>(weights, x, row, part, lane, acc);
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q8_0(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q8_0::BLOCK, Q8_0::TILES>(col);
    device const uchar* codes = plane_row<COLS>(weights, row, 0) + p.tile * TILE;
    device const half* d = (device const half*)(plane_row<COLS / 16>(weights + Q8_0::scales<ROWS, COLS>(), row, 0)) + p.tile * 8;
    const float scale = d[p.lane / 4 * p.count + p.t];
    return scale * float4(((device const char4*)codes)[(p.lane * p.count + p.t) * 2 + p.j]);
}
