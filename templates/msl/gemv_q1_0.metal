// Q1_0: a half scale for 128 signs; 1 is +scale, 0 is -scale.
struct Q1_0 {
    typedef Codes1 Codes;
    static constexpr constant uint BLOCK = 128;
    static constexpr constant uint TILES = 4;

    template <uint ROWS, uint COLS>
    static constexpr ulong scales() { return Codes::bytes<ROWS, COLS>(); }

    template <uint ROWS, uint COLS, uint T>
    static inline float dot(device const uchar* weights, uint row, uint step, uint tile, uint lane,
                            thread const float4* v, thread const float* sums) {
        uint q[Codes::words(T)];
        Codes::load<ROWS, COLS, T>(weights, row, step, tile, lane, q);
        float d[T];
        load_halves<T, alignment(COLS / 64)>(
            plane_row<COLS / 64>(weights + scales<ROWS, COLS>(), row, step) + tile * 4 + lane / 16 * (2 * T), d);
        float sum = 0.0f;
        for (uint t = 0; t < T; ++t) {
            sum = fma(2.0f * d[t], Codes::dot<1, T>(q, t, v + 2 * t, sums[t]), sum);
        }
        return sum;
    }
};

// T tiles of one row a lane. The lanes hold the 16 signed sums of four inputs, in the lower and the upper half of the
// simdgroup those of the two runs that a byte of codes stands for, and each lane picks by its row's codes.
template <uint ROWS, uint COLS, uint BLOCKS, uint T>
inline float dot_row_q1_0(device const uchar* codes, device const uchar* scales, device const float* x, uint tile,
                          float4 signs, uint lane) {
    float sum = 0.0f;
    for (uint block = 0; block < BLOCKS; ++block) {
        device const uint4* words = (device const uint4*)(codes + tile * (TILE / 8)) + block * T;
        device const float4* input = (device const float4*)x + tile * (TILE / 4) + block * 32 + lane / 16 * 16;
        float parts[T];
        for (uint t = 0; t < T; ++t) {
            parts[t] = 0.0f;
        }
        for (uint i = 0; i < T; ++i) {
            uint word[4];
            load_words<16>((device const uchar*)(words + i), word);
            for (uint k = 0; k < 16; ++k) {
                const float4 v = input[k % T * (TILE / 4) + (16 * i + k) / T];
                const float entry = fma4(v, signs, 0.0f);
                const uint byte = word[k / 4] >> (8 * (k % 4));
                parts[k % T] += simd_shuffle(entry, ushort(byte & 15));
                parts[k % T] += simd_shuffle(entry, ushort((byte >> 4 & 15) | 16));
            }
        }
        float d[T];
        load_halves<T, alignment(COLS / 64)>(scales + tile * 4 + block * (2 * T), d);
        for (uint t = 0; t < T; ++t) {
            sum = fma(d[t], parts[t], sum);
        }
    }
    return sum;
}

// As gemv_packed with 32 rows, one a lane: many fewer instructions, for matrices with rows enough to fill the device.
template <uint ROWS, uint COLS, uint KS, uint SPLIT>
inline float gemv_row_q1_0(device const uchar* weights, device const float* x, uint row, uint part, uint lane) {
    constexpr uint T = Q1_0::TILES;
    constexpr uint GROUPS = COLS / (TILE * T);
    constexpr uint LEFT = COLS / TILE % T;
    const uint step = row_step<ROWS, 32, SPLIT>(row, lane);
    device const uchar* codes = plane_row<COLS / 8>(weights, row, step);
    device const uchar* scales = plane_row<COLS / 64>(weights + Q1_0::scales<ROWS, COLS>(), row, step);
    const float4 signs = float4(lane & 1 ? 1.0f : -1.0f, lane & 2 ? 1.0f : -1.0f, lane & 4 ? 1.0f : -1.0f,
                                lane & 8 ? 1.0f : -1.0f);
    float sum = 0.0f;
    for (uint i = part; i < GROUPS; i += KS) {
        sum += dot_row_q1_0<ROWS, COLS, 2, T>(codes, scales, x, i * T, signs, lane);
    }
    if (COLS % (TILE * T) != 0 && part == GROUPS % KS) {
        if (LEFT & 2) {
            sum += dot_row_q1_0<ROWS, COLS, 2, 2>(codes, scales, x, GROUPS * T, signs, lane);
        }
        if (LEFT & 1) {
            sum += dot_row_q1_0<ROWS, COLS, 2, 1>(codes, scales, x, GROUPS * T + (LEFT & 2), signs, lane);
        }
        if (COLS % TILE != 0) {
            sum += dot_row_q1_0<ROWS, COLS, 1, 1>(codes, scales, x, GROUPS * T + LEFT, signs, lane);
        }
    }
    return sum;
}

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT>
inline void gemv_q1_0(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                      thread float* acc) {
    if (NR == 32) {
        const float sum = gemv_row_q1_0<ROWS, COLS, KS, SPLIT>(weights, x, row, part, lane);
        #pragma clang loop unroll(full)
        for (uint r = 0; r < NR; ++r) {
            acc[r] = simd_shuffle(sum, ushort(r));
        }
    } else {
        gemv_packed<Q1_0, ROWS, COLS, NR, KS, SPLIT>(weights, x, row, part, lane, acc);
    }
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_q1_0(device const uchar* weights, uint row, uint col) {
    const Place p = find_columns<COLS, Q1_0::BLOCK, Q1_0::TILES>(col);
    const float4 codes = Codes1::four<ROWS, COLS>(weights, row, p);
    device const uchar* scales = plane_row<COLS / 64>(weights + Q1_0::scales<ROWS, COLS>(), row, 0) + p.tile * 4;
    return load_half(scales, p.lane / 16 * p.count + p.t) * (2.0f * codes - 1.0f);
}
