// Matrix times a tile of tokens: result[64 tokens][64 rows] = input[tokens, COLS] x weights[ROWS, COLS]^T, by 128
// threads in four simdgroups of 32 tokens x 32 rows each. T is the operand type of the 8x8 matrices; sums are float.
// With HALF (rows of gate and of up) a tile is 32 rows of `weights` and the same 32 rows of `second` from OFFSET on. Rows of the
// input are STRIDE elements apart.

// `shared` holds the operand tiles [64][32] of tokens and of weights during the loop, the result afterwards.
template <typename W, typename W2, typename T, uint ROWS, uint COLS, uint HALF, uint OFFSET, uint STRIDE = COLS>
inline void gemm_tile(device const uchar* weights, device const uchar* second, device const float* input,
                      threadgroup float* shared, uint tokens, uint first_row, uint thread_index, uint simdgroup) {
    threadgroup T* token_tile = (threadgroup T*)shared;
    threadgroup T* weight_tile = token_tile + 64 * 32;
    const uint tile_token = (simdgroup & 1) * 32;
    const uint tile_row = (simdgroup >> 1) * 32;
    simdgroup_matrix<float, 8, 8> sums[4][4];
    for (uint i = 0; i < 4; ++i) {
        for (uint j = 0; j < 4; ++j) {
            sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        }
    }
    for (uint k = 0; k < COLS; k += 32) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint i = thread_index; i < 512; i += 128) {
            const uint line = i / 8;
            const uint column = i % 8 * 4;
            const bool inside = COLS % 32 == 0 || k + column < COLS;
            float4 value = float4(0.0f);
            if (inside && line < tokens) {
                value = *(device const float4*)(input + line * STRIDE + k + column);
            }
            for (uint e = 0; e < 4; ++e) {
                token_tile[line * 32 + column + e] = T(value[e]);
            }
            const bool paired = HALF != 0 && line >= 32;
            const uint row = paired ? first_row + line - 32 : first_row + line;
            value = float4(0.0f);
            if (inside && row < (HALF != 0 ? HALF : ROWS)) {
                value = paired ? W2::template load4<ROWS, COLS>(second, row + OFFSET, k + column)
                               : W::template load4<ROWS, COLS>(weights, row, k + column);
            }
            for (uint e = 0; e < 4; ++e) {
                weight_tile[line * 32 + column + e] = T(value[e]);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint kk = 0; kk < 32; kk += 8) {
            simdgroup_matrix<T, 8, 8> a[4];
            simdgroup_matrix<T, 8, 8> b[4];
            for (uint i = 0; i < 4; ++i) {
                simdgroup_load(a[i], token_tile + (tile_token + i * 8) * 32 + kk, 32);
                simdgroup_load(b[i], weight_tile + (tile_row + i * 8) * 32 + kk, 32, ulong2(0, 0), true);
            }
            for (uint i = 0; i < 4; ++i) {
                for (uint j = 0; j < 4; ++j) {
                    simdgroup_multiply_accumulate(sums[i][j], a[i], b[j], sums[i][j]);
                }
            }
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = 0; i < 4; ++i) {
        for (uint j = 0; j < 4; ++j) {
            simdgroup_store(sums[i][j], shared + (tile_token + i * 8) * 64 + tile_row + j * 8, 64);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

// Epilogues over the result tile: thread t handles column t % 64 of every second token.

// y[token, first_row + column] = result, WIDTH elements a token.
template <uint WIDTH>
inline void store_tile(device float* y, threadgroup const float* result, uint tokens, uint first_row, uint end,
                       uint thread_index) {
    const uint row = first_row + thread_index % 64;
    for (uint token = thread_index / 64; token < tokens; token += 2) {
        if (row < end) {
            y[token * WIDTH + row] = result[token * 64 + thread_index % 64];
        }
    }
}

inline void softcap_tile(threadgroup float* result, float cap, uint thread_index) {
    for (uint i = thread_index; i < 64 * 64; i += 128) {
        result[i] = cap * precise::tanh(result[i] / cap);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

// Adds `bias[row]`; rows 32.. of the tile take theirs SPLIT further on where SPLIT is not 0.
template <uint SPLIT>
inline void add_tile_bias(threadgroup float* result, device const float* bias, uint first_row, uint end,
                          uint thread_index) {
    const uint column = thread_index % 64;
    const bool second = SPLIT != 0 && column >= 32;
    const uint row = second ? first_row + column - 32 : first_row + column;
    if (row < end) {
        const float value = bias[second ? row + SPLIT : row];
        for (uint token = thread_index / 64; token < 64; token += 2) {
            result[token * 64 + column] += value;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

template <uint WIDTH>
inline void add_tile(device float* x, threadgroup const float* result, float factor, uint tokens, uint first_row,
                     uint thread_index) {
    const uint row = first_row + thread_index % 64;
    for (uint token = thread_index / 64; token < tokens; token += 2) {
        if (row < WIDTH) {
            x[token * WIDTH + row] += factor * result[token * 64 + thread_index % 64];
        }
    }
}

// y = activation(gate) * up; gate rows are columns 0..31 of the tile, up rows 32..63.
template <uint WIDTH, typename A>
inline void store_gated_tile(device float* y, threadgroup const float* result, uint tokens, uint first_row,
                             uint thread_index) {
    const uint column = thread_index % 32;
    for (uint token = thread_index / 32; token < tokens; token += 4) {
        if (first_row + column < WIDTH) {
            const float gate = result[token * 64 + column];
            y[token * WIDTH + first_row + column] = A::apply(gate) * A::linear(result[token * 64 + column + 32]);
        }
    }
}
