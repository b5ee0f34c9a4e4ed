// F32 rows as they are, four columns a lane. acc as in gemv_packed.
template <uint ROWS, uint COLS, uint NR, uint SPLIT, uint TOKENS, uint T>
inline void gemv_f32_step(device const uchar* weights, device const float* x, uint row, uint quad, uint lane,
                          thread float* acc, uint tokens) {
    #pragma clang loop unroll(full)
    for (uint n = 0; n < TOKENS; ++n) {
        if (has_token<TOKENS>(n, tokens)) {
            float4 v[T];
            for (uint t = 0; t < T; ++t) {
                v[t] = ((device const float4*)(x + n * COLS))[quad + t * LANES + lane];
            }
            for (uint r = 0; r < NR; ++r) {
                const uint step = row_step<ROWS, NR, SPLIT>(row, r);
                device const float4* w = (device const float4*)plane_row<COLS * 4>(weights, row, step) + quad + lane;
                for (uint t = 0; t < T; ++t) {
                    acc[n * NR + r] = fma4(w[t * LANES], v[t], acc[n * NR + r]);
                }
            }
        }
    }
}

template <uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS = 1>
inline void gemv_f32(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                     thread float* acc, uint tokens = 1) {
    constexpr uint T = 4;
    constexpr uint QUADS = COLS / 4;
    constexpr uint GROUPS = QUADS / (T * LANES);
    for (uint r = 0; r < NR * TOKENS; ++r) {
        acc[r] = 0.0f;
    }
    if (COLS % 4 != 0) {
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
                const float w = ((device const float*)weights)[at];
                #pragma clang loop unroll(full)
                for (uint n = 0; n < TOKENS; ++n) {
                    if (has_token<TOKENS>(n, tokens)) {
                        acc[n * NR + r] = fma(w, v[n], acc[n * NR + r]);
                    }
                }
            }
        }
    } else {
        for (uint i = 0; i < GROUPS / KS; ++i) {
            gemv_f32_step<ROWS, COLS, NR, SPLIT, TOKENS, T>(weights, x, row, (i * KS + part) * (T * LANES),
                                                           lane, acc, tokens);
        }
        if (GROUPS % KS != 0 && part < GROUPS % KS) {
            gemv_f32_step<ROWS, COLS, NR, SPLIT, TOKENS, T>(weights, x, row, (GROUPS / KS * KS + part) * (T * LANES),
                                                           lane, acc, tokens);
        }
        if (part == GROUPS % KS) {
            for (uint quad = GROUPS * (T * LANES); quad + lane < QUADS; quad += LANES) {
                gemv_f32_step<ROWS, COLS, NR, SPLIT, TOKENS, 1>(weights, x, row, quad, lane, acc, tokens);
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
inline float4 load4_f32(device const uchar* weights, uint row, uint col) {
    device const float* w = (device const float*)weights + (ulong(row) * COLS + col);
    if (COLS % 4 == 0) {
        return *(device const float4*)w;
    }
    return float4(w[0], col + 1 < COLS ? w[1] : 0.0f, col + 2 < COLS ? w[2] : 0.0f, col + 3 < COLS ? w[3] : 0.0f);
}
