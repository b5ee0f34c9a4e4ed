// Causal attention of a tile of tokens over the KV cache, with online softmax. A threadgroup of four simdgroups takes GROUP heads
// that have the same keys and 32 * STRIPS rows, a row being a token's query of one of those heads, and walks the keys KEYS at
// a time: scores = Q K^T, softmax, sums += P V, all in 8x8 matrices of halves or floats, as P says, with float sums. Queries and
// keys have HEAD_DIM elements, values VALUE_DIM. A simdgroup has STRIPS times eight rows, and leaves out keys that none of them
// sees. `sinks`, where there are any, [HEADS], are scores without a value.

// KEYS rows of a head of the cache from position `start` on, zeros from `end` on, as operands: 8x8 matrices of eight keys each,
// one after another (`store8`).
template <uint WIDTH, uint HEAD_DIM, uint KEYS, uint WRAP, typename O, typename T>
inline void load_cache_tile(device const T* cache, threadgroup O* tile, uint kv_offset, uint start, uint end,
                            uint simdgroup, uint lane) {
    constexpr uint PARTS = HEAD_DIM / 8;
    constexpr uint MATRICES = KEYS / 8 * PARTS;
    #pragma clang loop unroll(full)
    for (uint turn = 0; turn < (MATRICES + 15) / 16; ++turn) {
        const uint matrix = turn * 16 + simdgroup * 4 + lane / 8;
        const uint key = start + matrix / PARTS * 8 + lane % 8;
        if (MATRICES % 16 == 0 || matrix < MATRICES) {
            float4 value[2] = {float4(0.0f), float4(0.0f)};
            if (key < end) {
                const uint at = WRAP != 0 ? key % WRAP : key;
                load_cache8(cache_head<WIDTH>(cache, at, kv_offset), matrix % PARTS * 8, value);
            }
            store8(tile + matrix * 64 + lane % 8 * 8, value[0], value[1]);
        }
    }
}

// Weights take the place of scores: floats that of those that a lane read itself, halves that of others'.
struct HalfWeights {
    typedef half Element;
    static inline void wait_for_scores() { simdgroup_barrier(mem_flags::mem_threadgroup); }
};

struct FloatWeights {
    typedef float Element;
    static inline void wait_for_scores() {}
};

template <uint HEADS, uint KV_HEADS, uint HEAD_DIM, uint VALUE_DIM, uint GROUP, uint STRIPS, uint KEYS, uint WINDOW,
          uint WRAP, typename P, typename T>
inline void attention_tile(device const float* q, device const T* keys, device const T* values, device float* y,
                           threadgroup float* shared, uint start_of_slot, uint position, uint rows, float scale,
                           float softcap, uint block, uint group, uint simdgroup, uint lane,
                           device const float* sinks = nullptr) {
    typedef typename P::Element Operand;
    constexpr uint PARTS = HEAD_DIM / 8;
    constexpr uint VALUE_PARTS = VALUE_DIM / 8;
    constexpr uint WIDTH = KV_HEADS * HEAD_DIM;
    constexpr uint VALUES_WIDTH = KV_HEADS * VALUE_DIM;
    constexpr uint TOKENS = 32 * STRIPS / GROUP;
    constexpr uint OPERANDS = 4 / sizeof(Operand); // in a float's room
    // Lines of scores, and of the weights that take their place: 40 elements, so that eight of them meet in no bank.
    constexpr uint LINE = 40;
    threadgroup Operand* tile = (threadgroup Operand*)shared;
    constexpr uint LARGER = HEAD_DIM > VALUE_DIM ? HEAD_DIM : VALUE_DIM;
    threadgroup float* scores = shared + KEYS * LARGER / OPERANDS + simdgroup * (8 * STRIPS * LINE + 64);
    threadgroup Operand* weights = (threadgroup Operand*)scores;
    threadgroup float* square = scores + 8 * STRIPS * LINE;
    const uint first_head = group * GROUP;
    const uint kv_head = first_head / (HEADS / KV_HEADS);
    keys += ulong(start_of_slot) * cache_stride(WIDTH);
    values += ulong(start_of_slot) * cache_stride(VALUES_WIDTH);
    const uint first_token = block * TOKENS;
    const uint first_row = simdgroup * (8 * STRIPS);

    // The rows' queries, scaled, as matrices, four at a time through threadgroup memory.
    simdgroup_matrix<Operand, 8, 8> queries[STRIPS][PARTS];
    #pragma clang loop unroll(full)
    for (uint s = 0; s < STRIPS; ++s) {
        #pragma clang loop unroll(full)
        for (uint part = 0; part < PARTS; part += 4) {
            const uint element = part * 8 + lane % 8 * 4;
            #pragma clang loop unroll(full)
            for (uint line = 0; line < 8; line += 4) {
                const uint row = first_row + s * 8 + line + lane / 8;
                const uint token = first_token + row / GROUP;
                float4 value = 0.0f;
                if (token < rows && (PARTS % 4 == 0 || element < HEAD_DIM)) {
                    const uint head = first_head + row % GROUP;
                    value = scale * *(device const float4*)(q + (token * HEADS + head) * HEAD_DIM + element);
                }
                threadgroup Operand* target = weights + (line + lane / 8) * LINE + lane % 8 * 4;
                #pragma clang loop unroll(full)
                for (uint e = 0; e < 4; ++e) {
                    target[e] = Operand(value[e]);
                }
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
            #pragma clang loop unroll(full)
            for (uint p = 0; p < 4; ++p) {
                if (part + p < PARTS) {
                    simdgroup_load(queries[s][part + p], weights + p * 8, LINE);
                }
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
    simdgroup_matrix<float, 8, 8> sums[STRIPS][VALUE_PARTS];
    // Four lanes share a row of scores.
    uint own[STRIPS]; // the row's position
    float highest[STRIPS];
    float total[STRIPS];
    #pragma clang loop unroll(full)
    for (uint s = 0; s < STRIPS; ++s) {
        #pragma clang loop unroll(full)
        for (uint part = 0; part < VALUE_PARTS; ++part) {
            sums[s][part] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        }
        const uint row = first_row + s * 8 + lane / 4;
        own[s] = position + first_token + row / GROUP;
        highest[s] = sinks != nullptr ? sinks[first_head + row % GROUP] : -1.0e30f;
        total[s] = sinks != nullptr ? 1.0f : 0.0f;
    }
    square[lane] = 0.0f;
    square[lane + 32] = 0.0f;

    const uint first_position = position + first_token;
    const uint begin = WINDOW != 0 && first_position + 1 > WINDOW ? first_position + 1 - WINDOW : 0;
    const uint end = position + min(rows, first_token + TOKENS);
    // Positions of the simdgroup's first row and of its last.
    const uint lowest = first_position + first_row / GROUP;
    const uint latest = first_position + (first_row + 8 * STRIPS - 1) / GROUP;
    for (uint start = begin; start < end; start += KEYS) {
        const bool sees = start <= latest && (WINDOW == 0 || start + KEYS + WINDOW > lowest + 1);
        const bool sees_all = start + KEYS <= min(lowest + 1, end) && (WINDOW == 0 || start + WINDOW > latest);
        load_cache_tile<WIDTH, HEAD_DIM, KEYS, WRAP>(keys, tile, kv_head * HEAD_DIM, start, end, simdgroup, lane);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (sees) {
            for (uint j = 0; j < KEYS / 8; ++j) {
                simdgroup_matrix<float, 8, 8> score[STRIPS];
                #pragma clang loop unroll(full)
                for (uint s = 0; s < STRIPS; ++s) {
                    score[s] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
                }
                #pragma clang loop unroll(full)
                for (uint part = 0; part < PARTS; ++part) {
                    simdgroup_matrix<Operand, 8, 8> key;
                    simdgroup_load(key, tile + (j * PARTS + part) * 64, 8, ulong2(0, 0), true);
                    #pragma clang loop unroll(full)
                    for (uint s = 0; s < STRIPS; ++s) {
                        simdgroup_multiply_accumulate(score[s], queries[s][part], key, score[s]);
                    }
                }
                #pragma clang loop unroll(full)
                for (uint s = 0; s < STRIPS; ++s) {
                    simdgroup_store(score[s], scores + s * 8 * LINE + j * 8, LINE);
                }
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
            float correction[STRIPS];
            bool moved = false;
            #pragma clang loop unroll(full)
            for (uint s = 0; s < STRIPS; ++s) {
                const uint line = (s * 8 + lane / 4) * LINE + lane % 4;
                float of_lane[KEYS / 4];
                float top = highest[s];
                #pragma clang loop unroll(full)
                for (uint j = 0; j < KEYS / 4; ++j) {
                    float value = scores[line + j * 4];
                    if (softcap != 0.0f) {
                        value = softcap * precise::tanh(value / softcap);
                    }
                    const uint key = start + lane % 4 + j * 4;
                    const bool seen = key <= own[s] && key < end && (WINDOW == 0 || key + WINDOW > own[s]);
                    of_lane[j] = sees_all || seen ? value : -1.0e30f;
                    top = max(top, of_lane[j]);
                }
                top = max(top, simd_shuffle_xor(top, ushort(1)));
                top = max(top, simd_shuffle_xor(top, ushort(2)));
                moved = moved || top != highest[s];
                correction[s] = precise::exp(highest[s] - top);
                highest[s] = top;
                P::wait_for_scores();
                float sum = 0.0f;
                #pragma clang loop unroll(full)
                for (uint j = 0; j < KEYS / 4; ++j) {
                    const float weight = of_lane[j] > -1.0e29f ? precise::exp(of_lane[j] - top) : 0.0f;
                    weights[OPERANDS * s * 8 * LINE + lane / 4 * LINE + lane % 4 + j * 4] = Operand(weight);
                    sum += weight;
                }
                sum += simd_shuffle_xor(sum, ushort(1));
                sum += simd_shuffle_xor(sum, ushort(2));
                total[s] = total[s] * correction[s] + sum;
            }
            // Sums stay as they are where no row's highest score moved.
            if (simd_any(moved)) {
                #pragma clang loop unroll(full)
                for (uint s = 0; s < STRIPS; ++s) {
                    simdgroup_barrier(mem_flags::mem_threadgroup);
                    if (lane % 4 == 0) {
                        square[lane / 4 * 9] = correction[s];
                    }
                    simdgroup_barrier(mem_flags::mem_threadgroup);
                    simdgroup_matrix<float, 8, 8> diagonal;
                    simdgroup_load(diagonal, square, 8);
                    #pragma clang loop unroll(full)
                    for (uint part = 0; part < VALUE_PARTS; ++part) {
                        simdgroup_matrix<float, 8, 8> scaled;
                        simdgroup_multiply(scaled, diagonal, sums[s][part]);
                        sums[s][part] = scaled;
                    }
                }
            }
        }
        // All are done with the keys: the values take their place.
        threadgroup_barrier(mem_flags::mem_threadgroup);
        load_cache_tile<VALUES_WIDTH, VALUE_DIM, KEYS, WRAP>(values, tile, kv_head * VALUE_DIM, start, end, simdgroup,
                                                             lane);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (sees) {
            for (uint j = 0; j < KEYS / 8; ++j) {
                simdgroup_matrix<Operand, 8, 8> weight[STRIPS];
                #pragma clang loop unroll(full)
                for (uint s = 0; s < STRIPS; ++s) {
                    simdgroup_load(weight[s], weights + OPERANDS * s * 8 * LINE + j * 8, LINE);
                }
                #pragma clang loop unroll(full)
                for (uint part = 0; part < VALUE_PARTS; ++part) {
                    simdgroup_matrix<Operand, 8, 8> value;
                    simdgroup_load(value, tile + (j * VALUE_PARTS + part) * 64, 8);
                    #pragma clang loop unroll(full)
                    for (uint s = 0; s < STRIPS; ++s) {
                        simdgroup_multiply_accumulate(sums[s][part], weight[s], value, sums[s][part]);
                    }
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    // Out through the scores' lines, 32 elements at a time.
    #pragma clang loop unroll(full)
    for (uint s = 0; s < STRIPS; ++s) {
        #pragma clang loop unroll(full)
        for (uint part = 0; part < VALUE_PARTS; part += 4) {
            #pragma clang loop unroll(full)
            for (uint p = 0; p < 4; ++p) {
                if (part + p < VALUE_PARTS) {
                    simdgroup_store(sums[s][part + p], scores + p * 8, LINE);
                }
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
            #pragma clang loop unroll(full)
            for (uint line = 0; line < 8; ++line) {
                const float whole = simd_shuffle(total[s], ushort(line * 4));
                const uint row = first_row + s * 8 + line;
                const uint token = first_token + row / GROUP;
                if (token < rows && (VALUE_PARTS % 4 == 0 || part * 8 + lane < VALUE_DIM)) {
                    const uint head = first_head + row % GROUP;
                    y[(token * HEADS + head) * VALUE_DIM + part * 8 + lane] = scores[line * LINE + lane] / whole;
                }
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
}
