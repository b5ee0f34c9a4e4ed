// BF16 rows as they are, eight columns a lane where rows are whole 16-byte words, else four. acc as in gemv_packed.
inline float4 bf16_to_float4(uint2 bits) { return as_type<float4>(uint4(bits.x << 16, bits.x & 0xFFFF0000u, bits.y << 16, bits.y & 0xFFFF0000u)); }

template <uint ROWS, uint COLS, uint NR, uint SPLIT, uint TOKENS, uint T>
inline void gemv_bf16_step(device const uchar* weights, device const float* x, uint row, uint word, uint lane,
                          thread float* acc, uint tokens) {
    #pragma clang loop unroll(full)
    for (uint n = 0; n < TOKENS; ++n) {
        if (has_token<TOKENS>(n, tokens)) {
            device const float4* input = (device const float4*)(x + n * COLS) + 2 * (word + lane);
            float4 v[2 * T];
            for (uint t = 0; t < T; ++t) {
                v[2 * t] = input[2 * t * LANES];
                v[2 * t + 1] = input[2 * t * LANES + 1];
            }
            for (uint r = 0; r < NR; ++r) {
                const uint step = row_step<ROWS, NR, SPLIT>(row, r);
                device const uint4* w = (device const uint4*)plane_row<COLS * 2>(weights, row, step) + word + lane;
                for (uint t = 0; t < T; ++t) {
                    const uint4 bits = w[t * LANES];
                    float sum = fma4(bf16_to_float4(uint2(bits.x, bits.y)), v[2 * t], acc[n * NR + r]);
                    acc[n * NR + r] = fma4(bf16_to_float4(uint2(bits.z, bits.w)), v[2 * t + 1], sum);
                }
            }
        }
    }
}

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_bf16(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                     thread float* acc, uint tokens = 1) {
    constexpr uint T = 2;
    constexpr uint WORDS = COLS / 8;
    constexpr uint GROUPS = WORDS / (T * LANES);
    for (uint r = 0; r < NR * TOKENS; ++r) {
        acc[r] = 0.0f;
    }
    if (COLS % 8 == 0) {
        for (uint i = 0; i < GROUPS / KS; ++i) {
            gemv_bf16_step<ROWS, COLS, NR, SPLIT, TOKENS, T>(weights, x, row, (i * KS + part) * (T * LANES),
                                                           lane, acc, tokens);
        }
        if (GROUPS % KS != 0 && part < GROUPS % KS) {
            gemv_bf16_step<ROWS, COLS, NR, SPLIT, TOKENS, T>(weights, x, row, (GROUPS / KS * KS + part) * (T * LANES),
                                                           lane, acc, tokens);
        }
        if (part == GROUPS % KS) {
            for (uint word = GROUPS * (T * LANES); word + lane < WORDS; word += LANES) {
                gemv_bf16_step<ROWS, COLS, NR, SPLIT, TOKENS, 1>(weights, x, row, word, lane, acc, tokens);
            }
        }
    } else if (COLS % 4 == 0) {
        for (uint quad = part * LANES + lane; quad < COLS / 4; quad += KS * LANES) {
            float4 v[TOKENS];
            #pragma clang loop unroll(full)
            for (uint n = 0; n < TOKENS; ++n) {
                if (has_token<TOKENS>(n, tokens)) {
                    v[n] = ((device const float4*)(x + n * COLS))[quad];
                }
            }
            for (uint r = 0; r < NR; ++r) {
                const uint step = row_step<ROWS, NR, SPLIT>(row, r);
                const float4 w = bf16_to_float4(((device const uint2*)plane_row<COLS * 2>(weights, row, step))[quad]);
                #pragma clang loop unroll(full)
                for (uint n = 0; n < TOKENS; ++n) {
                    if (has_token<TOKENS>(n, tokens)) {
                        acc[n * NR + r] = fma4(w, v[n], acc[n * NR + r]);
                    }
                }
            }
        }
    } else {
        for (uint k = part * LANES + lane; k < COLS; k += KS * LANES) {
            float v[TOKENS];
            #pragma clang loop unroll(full)
            for (uint n = 0; n < TOKENS; ++n) {
                if (has_token<TOKENS>(n, tokens)) {
                    v[n] = x[n * COLS + k];
                }
            }
            for (uint r = 0; r < NR; ++r) {
                const ulong at = ulong(row + row_step<ROWS, NR, SPLIT>(row, r)) * COLS + k;
                const float w = bf16_to_float(((device const ushort*)weights)[at]);
                #pragma clang loop unroll(full)
                for (uint n = 0; n < TOKENS; ++n) {
                    if (has_token<TOKENS>(n, tokens)) {
                        acc[n * NR + r] = fma(w, v[n], acc[n * NR + r]);
                    }
                }
            }
        }
    }
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR * TOKENS; ++r) {
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
