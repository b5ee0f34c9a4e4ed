// Rows of floats as they are, 16 bytes a lane where rows are whole 16-byte words, else four columns. W is how a float is stored: COLUMNS
// of a word and BYTES of a column; four is four columns of a word, quad four from an address on, element number `at` one.

// T words of each row, 32 lanes side by side, added to acc. Every sum has the same terms in the same order however many tokens there are:
// with several a word is decoded once for all of them.
template <typename W, uint ROWS, uint COLS, uint NR, uint SPLIT, uint TOKENS, uint T>
inline void add_words(device const uchar* weights, device const float* x, uint row, uint word, uint lane, thread float* acc,
                      uint tokens) {
    constexpr uint QUADS = W::COLUMNS / 4;
    if (TOKENS == 1) {
        device const float4* input = (device const float4*)x + QUADS * (word + lane);
        float4 v[QUADS * T];
        for (uint t = 0; t < T; ++t) {
            for (uint q = 0; q < QUADS; ++q) {
                v[QUADS * t + q] = input[QUADS * t * LANES + q];
            }
        }
        for (uint r = 0; r < NR; ++r) {
            const uint step = row_step<ROWS, NR, SPLIT>(row, r);
            device const uint4* words = (device const uint4*)plane_row<COLS * W::BYTES>(weights, row, step) + word + lane;
            for (uint t = 0; t < T; ++t) {
                const uint4 bits = words[t * LANES];
                for (uint q = 0; q < QUADS; ++q) {
                    acc[r] = fma4(W::four(bits, q), v[QUADS * t + q], acc[r]);
                }
            }
        }
    } else {
        for (uint t = 0; t < T; ++t) {
            uint4 bits[NR];
            #pragma clang loop unroll(full)
            for (uint r = 0; r < NR; ++r) {
                const uint step = row_step<ROWS, NR, SPLIT>(row, r);
                bits[r] = ((device const uint4*)plane_row<COLS * W::BYTES>(weights, row, step))[word + lane + t * LANES];
            }
            // Four columns of all rows at a time, so that no more of them than that are there as floats.
            #pragma clang loop unroll(full)
            for (uint q = 0; q < QUADS; ++q) {
                float4 w[NR];
                #pragma clang loop unroll(full)
                for (uint r = 0; r < NR; ++r) {
                    w[r] = W::four(bits[r], q);
                }
                #pragma clang loop unroll(full)
                for (uint n = 0; n < TOKENS; ++n) {
                    // A token that is not there repeats the last, so that nothing branches.
                    device const float4* input = (device const float4*)(x + min(n, tokens - 1) * COLS);
                    const float4 v = input[QUADS * (word + lane + t * LANES) + q];
                    #pragma clang loop unroll(full)
                    for (uint r = 0; r < NR; ++r) {
                        acc[n * NR + r] = fma4(w[r], v, acc[n * NR + r]);
                    }
                }
            }
        }
    }
}

// acc[n * NR + r] = sum over this simdgroup's share of the columns of W[row + row_step(r), k] * x[n, k] for the tokens that are there,
// the same in every lane. KS simdgroups share the rows; `part` of them is this one.
template <typename W, uint ROWS, uint COLS, uint NR, uint KS, uint SPLIT, uint TOKENS>
inline void gemv_floats(device const uchar* weights, device const float* x, uint row, uint part, uint lane,
                        thread float* acc, uint tokens) {
    constexpr uint T = 16 / W::COLUMNS;
    constexpr uint WORDS = COLS / W::COLUMNS;
    constexpr uint GROUPS = WORDS / (T * LANES);
    for (uint r = 0; r < NR * TOKENS; ++r) {
        acc[r] = 0.0f;
    }
    if (COLS % W::COLUMNS == 0) {
        for (uint i = 0; i < GROUPS / KS; ++i) {
            add_words<W, ROWS, COLS, NR, SPLIT, TOKENS, T>(weights, x, row, (i * KS + part) * (T * LANES), lane, acc, tokens);
        }
        if (GROUPS % KS != 0 && part < GROUPS % KS) {
            add_words<W, ROWS, COLS, NR, SPLIT, TOKENS, T>(weights, x, row, (GROUPS / KS * KS + part) * (T * LANES), lane, acc, tokens);
        }
        if (part == GROUPS % KS) {
            for (uint word = GROUPS * (T * LANES); word + lane < WORDS; word += LANES) {
                add_words<W, ROWS, COLS, NR, SPLIT, TOKENS, 1>(weights, x, row, word, lane, acc, tokens);
            }
        }
    } else if (COLS % 4 == 0) {
        for (uint quad = part * LANES + lane; quad < COLS / 4; quad += KS * LANES) {
            float4 v[TOKENS];
            #pragma clang loop unroll(full)
            for (uint n = 0; n < TOKENS; ++n) {
                v[n] = ((device const float4*)(x + min(n, tokens - 1) * COLS))[quad];
            }
            for (uint r = 0; r < NR; ++r) {
                const uint step = row_step<ROWS, NR, SPLIT>(row, r);
                const float4 w = W::quad(plane_row<COLS * W::BYTES>(weights, row, step) + quad * (4 * W::BYTES));
                #pragma clang loop unroll(full)
                for (uint n = 0; n < TOKENS; ++n) {
                    acc[n * NR + r] = fma4(w, v[n], acc[n * NR + r]);
                }
            }
        }
    } else {
        for (uint k = part * LANES + lane; k < COLS; k += KS * LANES) {
            float v[TOKENS];
            #pragma clang loop unroll(full)
            for (uint n = 0; n < TOKENS; ++n) {
                v[n] = x[min(n, tokens - 1) * COLS + k];
            }
            for (uint r = 0; r < NR; ++r) {
                const float w = W::element(weights, ulong(row + row_step<ROWS, NR, SPLIT>(row, r)) * COLS + k);
                #pragma clang loop unroll(full)
                for (uint n = 0; n < TOKENS; ++n) {
                    acc[n * NR + r] = fma(w, v[n], acc[n * NR + r]);
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
template <typename W, uint ROWS, uint COLS>
inline float4 load4_floats(device const uchar* weights, uint row, uint col) {
    const ulong at = ulong(row) * COLS + col;
    if (COLS % 4 == 0) {
        return W::quad(weights + at * W::BYTES);
    }
    float4 w = 0.0f;
    for (uint i = 0; i < 4 && col + i < COLS; ++i) {
        w[i] = W::element(weights, at + i);
    }
    return w;
}
