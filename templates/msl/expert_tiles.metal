// Experts over many rows. `pairs` are rows and experts in order of the experts: row * CHOSEN + place in the row's choice;
// a tile is up to TOKENS of them, all of one expert: {expert, first pair, pairs}.

// result[TOKENS][64] = rows of the input x weights^T, by 128 threads in four simdgroups of 16 weight rows each. A stack has
// EACH rows for every expert; with OFFSET the tile is 32 rows of `weights` and the same 32 rows of `second` from OFFSET on.
// Pair p reads row p / PER of the input. T is the operand type of the 8x8 matrices; sums are float. `shared` holds the
// operand tiles [TOKENS][32] and [64][32] during the loop, the result afterwards.
template <typename W, typename W2, typename T, uint TOKENS, uint ROWS, uint EACH, uint COLS, uint GATED, uint OFFSET, uint PER>
inline void expert_tile(device const uchar* weights, device const uchar* second, device const float* input,
                        device const uint* pairs, device const uint* tile, threadgroup float* shared, uint first_row,
                        uint thread_index, uint simdgroup) {
    threadgroup T* token_tile = (threadgroup T*)shared;
    threadgroup T* weight_tile = token_tile + TOKENS * 32;
    const uint expert_row = tile[0] * EACH;
    device const uint* own = pairs + tile[1];
    const uint tokens = tile[2];
    simdgroup_matrix<float, 8, 8> sums[TOKENS / 8][2];
    for (uint i = 0; i < TOKENS / 8; ++i) {
        for (uint j = 0; j < 2; ++j) {
            sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        }
    }
    for (uint k = 0; k < COLS; k += 32) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint i = thread_index; i < TOKENS * 8; i += 128) {
            const uint line = i / 8;
            const uint column = i % 8 * 4;
            float4 value = float4(0.0f);
            if ((COLS % 32 == 0 || k + column < COLS) && line < tokens) {
                value = *(device const float4*)(input + ulong(own[line] / PER) * COLS + k + column);
            }
            for (uint e = 0; e < 4; ++e) {
                token_tile[line * 32 + column + e] = T(value[e]);
            }
        }
        for (uint i = thread_index; i < 512; i += 128) {
            const uint line = i / 8;
            const uint column = i % 8 * 4;
            const bool paired = GATED != 0 && line >= 32;
            const uint row = paired ? first_row + line - 32 : first_row + line;
            float4 value = float4(0.0f);
            if ((COLS % 32 == 0 || k + column < COLS) && row < EACH) {
                value = paired ? W2::template load4<ROWS, COLS>(second, expert_row + row + OFFSET, k + column)
                               : W::template load4<ROWS, COLS>(weights, expert_row + row, k + column);
            }
            for (uint e = 0; e < 4; ++e) {
                weight_tile[line * 32 + column + e] = T(value[e]);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint kk = 0; kk < 32; kk += 8) {
            simdgroup_matrix<T, 8, 8> a[TOKENS / 8];
            simdgroup_matrix<T, 8, 8> b[2];
            for (uint j = 0; j < 2; ++j) {
                simdgroup_load(b[j], weight_tile + (simdgroup * 16 + j * 8) * 32 + kk, 32, ulong2(0, 0), true);
            }
            for (uint i = 0; i < TOKENS / 8; ++i) {
                simdgroup_load(a[i], token_tile + i * 8 * 32 + kk, 32);
                for (uint j = 0; j < 2; ++j) {
                    simdgroup_multiply_accumulate(sums[i][j], a[i], b[j], sums[i][j]);
                }
            }
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = 0; i < TOKENS / 8; ++i) {
        for (uint j = 0; j < 2; ++j) {
            simdgroup_store(sums[i][j], shared + i * 8 * 64 + simdgroup * 16 + j * 8, 64);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

// y[pair] = activation(gate x) * up x, WIDTH elements a pair.
template <typename W, typename W2, typename T, typename A, uint TOKENS, uint EXPERTS, uint CHOSEN, uint WIDTH, uint COLS,
          uint SPLIT, uint BIASED>
inline void experts_gate_up_tile(device const uchar* gate, device const uchar* up, device const float* biases,
                                 device const float* input, device const uint* pairs, device const uint* tiles,
                                 device float* y, threadgroup float* shared, uint2 group, uint thread_index,
                                 uint simdgroup) {
    constexpr uint ROWS = SPLIT != 0 ? 2 * EXPERTS * WIDTH : EXPERTS * WIDTH;
    device const uint* tile = tiles + 3 * group.y;
    const uint first = group.x * 32;
    expert_tile<W, W2, T, TOKENS, ROWS, WIDTH, COLS, 1, SPLIT, CHOSEN>(gate, up, input, pairs, tile, shared, first,
                                                                      thread_index, simdgroup);
    device const uint* own = pairs + tile[1];
    const uint tokens = tile[2];
    const uint column = thread_index % 32;
    device const float* bias = biases + tile[0] * WIDTH + first + column;
    for (uint token = thread_index / 32; token < tokens; token += 4) {
        if (first + column < WIDTH) {
            float gated = shared[token * 64 + column];
            float value = shared[token * 64 + column + 32];
            if (BIASED != 0) {
                gated += bias[0];
                value += bias[EXPERTS * WIDTH];
            }
            y[ulong(own[token]) * WIDTH + first + column] = A::apply(gated) * A::linear(value);
        }
    }
}

// y[pair] = the expert's result, HIDDEN elements a pair.
template <typename W, typename T, uint TOKENS, uint EXPERTS, uint WIDTH, uint HIDDEN, uint BIASED>
inline void experts_down_tile(device const uchar* stack, device const float* biases, device const float* input,
                              device const uint* pairs, device const uint* tiles, device float* y,
                              threadgroup float* shared, uint2 group, uint thread_index, uint simdgroup) {
    device const uint* tile = tiles + 3 * group.y;
    const uint first = group.x * 64;
    expert_tile<W, W, T, TOKENS, EXPERTS * HIDDEN, HIDDEN, WIDTH, 0, 0, 1>(stack, stack, input, pairs, tile, shared, first,
                                                                          thread_index, simdgroup);
    device const uint* own = pairs + tile[1];
    const uint tokens = tile[2];
    const uint column = thread_index % 64;
    if (first + column < HIDDEN) {
        const float bias = BIASED != 0 ? biases[tile[0] * HIDDEN + first + column] : 0.0f;
        for (uint token = thread_index / 64; token < tokens; token += 2) {
            y[ulong(own[token]) * HIDDEN + first + column] = shared[token * 64 + column] + bias;
        }
    }
}

// x += factor * weighted sum of the results of a row's experts, in the order of its choice, and with SHARED of the one that
// every row takes; 1024 elements a threadgroup. Without ADDS the sum is stored.
template <uint CHOSEN, uint HIDDEN, uint SHARED, uint ADDS>
inline void experts_sum(device const float* input, device const float* weights, device const float* of_all,
                        device float* x, float factor, uint2 group, uint thread_index) {
    constexpr uint WEIGHTS = SHARED != 0 ? CHOSEN + 1 : CHOSEN;
    const uint i = group.x * 1024 + thread_index * 4;
    const uint row = group.y;
    if (i < HIDDEN) {
        float4 sum = float4(0.0f);
        for (uint place = 0; place < CHOSEN; ++place) {
            const float weight = weights[row * WEIGHTS + place];
            sum += weight * *(device const float4*)(input + ulong(row * CHOSEN + place) * HIDDEN + i);
        }
        if (SHARED != 0) {
            sum += weights[row * WEIGHTS + CHOSEN] * *(device const float4*)(of_all + ulong(row) * HIDDEN + i);
        }
        device float4* target = (device float4*)(x + ulong(row) * HIDDEN + i);
        *target = ADDS != 0 ? *target + factor * sum : sum;
    }
}
