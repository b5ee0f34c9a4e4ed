// BF16 rows as they are, eight columns a lane where rows are whole 16-byte words, else four. acc as in gemv_packed.
inline float4 bf16_to_float4(uint2 bits) { return as_type<float4>(uint4(bits.x << 16, bits.x & 0xFFFF0000u, bits.y << 16, bits.y & 0xFFFF0000u)); }

template <uint ROWS, uint COLS, uint NR, uint SPLIT, uint T>
inline void gemv_bf16_step(device const uchar* weights, device const float* x, uint row, uint word, uint lane,
                          thread float* acc) {
    float4 v[2 * T];
    for (uint t = 0; t < T; ++t) {
        v[2 * t] = ((device const float4*)x)[2 * (word + t * LANES + lane)];
        v[2 * t + 1] = ((device const float4*)x)[2 * (word + t * LANES + lane) + 1];
    }
    for (uint r = 0; r < NR; ++r) {
        device const uint4* w =
            (device const uint4*)plane_row<COLS * 2>(weights, row, row_step<ROWS, NR, SPLIT>(row, r)) + word + lane;
        for (uint t = 0; t < T; ++t) {
            const uint4 bits = w[t * LANES];
            acc[r] = fma4(bf16_to_float4(uint2(bits.x, bits.y)), v[2 * t], acc[r]);
            acc[r] = fma4(bf16_to_float4(uint2(bits.z, bits.w)), v[2 * t + 1], acc[r]);
        }
    }
}

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT>
inline void gemv_bf16(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                     thread float* acc) {
    constexpr uint T = 2;
    constexpr uint WORDS = COLS / 8;
    constexpr uint GROUPS = WORDS / (T * LANES);
    for (uint r = 0; r < NR; ++r) {
        acc[r] = 0.0f;
    }
    if (COLS % 8 == 0) {
        for (uint i = 0; i < GROUPS / KS; ++i) {
            gemv_bf16_step<ROWS, COLS, NR, SPLIT, T>(weights, x, row, (i * KS + part) * (T * LANES), lane, acc);
        }
        if (GROUPS % KS != 0 && part < GROUPS % KS) {
            gemv_bf16_step<ROWS, COLS, NR, SPLIT, T>(weights, x, row, (GROUPS / KS * KS + part) * (T * LANES), lane, acc);
        }
        if (part == GROUPS % KS) {
            for (uint word = GROUPS * (T * LANES); word + lane < WORDS; word += LANES) {
                gemv_bf16_step<ROWS, COLS, NR, SPLIT, 1>(weights, x, row, word, lane, acc);
            }
        }
    } else if (COLS % 4 == 0) {
        for (uint quad = part * LANES + lane; quad < COLS / 4; quad += KS * LANES) {
            const float4 v = ((device const float4*)x)[quad];
            for (uint r = 0; r < NR; ++r) {
                device const uint2* w =
                    (device const uint2*)plane_row<COLS * 2>(weights, row, row_step<ROWS, NR, SPLIT>(row, r));
                acc[r] = fma4(bf16_to_float4(w[quad]), v, acc[r]);
            }
        }
    } else {
        for (uint k = part * LANES + lane; k < COLS; k += KS * LANES) {
            for (uint r = 0; r < NR; ++r) {
                const ulong at = ulong(row + row_step<ROWS, NR, SPLIT>(row, r)) * COLS + k;
                acc[r] = fma(bf16_to_float(((device const ushort*)weights)[at]), x[k], acc[r]);
            }
        }
    }
    for (uint r = 0; r < NR; ++r) {
        acc[r] = simd_sum(acc[r]);
    }
}

// Four weights from `col`, a multiple of 4.
template <uint ROWS, uint COLS>
inline float4 load4_bf16(device const uchar* weights, uint row, uint col) {
    if (COLS % 4 == 0) {
        return bf16_to_float4(*(device const uint2*)(weights + (ulong(row) * COLS + col) * 2));
    }
    float4 w = 0.0f;
    for (uint i = 0; i < 4 && col + i < COLS; ++i) {
        const ulong at = ulong(row) * COLS + col + i;
        w[i] = bf16_to_float(((device const ushort*)weights)[at]);
    }
    return w;
}
