// Causal attention of a tile of tokens over the KV cache, with online softmax. A threadgroup of four simdgroups takes
// 32 rows of one head, eight rows a simdgroup, and walks the keys KEYS at a time: scores = Q K^T, softmax, sums += P V,
// all in 8x8 matrices of operand type O (half or float) with float sums. `sinks`, where there are any, [HEADS], are scores
// without a value.

// KEYS rows of the cache from position `start` on, zeros from `end` on, as operands.
template <uint STRIDE, uint HEAD_DIM, uint KEYS, uint WRAP, typename O, typename T>
inline void load_cache_tile(device const T* cache, threadgroup O* tile, uint start, uint end, uint thread_index) {
    for (uint i = thread_index; i < KEYS * HEAD_DIM / 4; i += 128) {
        const uint key = start + i / (HEAD_DIM / 4);
        const uint element = i % (HEAD_DIM / 4) * 4;
        for (uint e = 0; e < 4; ++e) {
            const uint slot = WRAP != 0 ? key % WRAP : key;
            tile[i * 4 + e] = key < end ? O(cache[slot * STRIDE + element + e]) : O(0.0f);
        }
    }
}

template <uint HEADS, uint KV_HEADS, uint HEAD_DIM, uint KEYS, uint WINDOW, uint WRAP, typename O, typename T>
inline void attention_tile(device const float* q, device const T* keys, device const T* values, device float* y,
                           threadgroup float* shared, uint start_of_slot, uint position, uint rows, float scale,
                           float softcap, uint block, uint head, uint thread_index, uint simdgroup, uint lane,
                           device const float* sinks = nullptr) {
    constexpr uint PARTS = HEAD_DIM / 8;
    constexpr uint STRIDE = KV_HEADS * HEAD_DIM;
    threadgroup O* tile = (threadgroup O*)shared;
    threadgroup float* scores = shared + KEYS * HEAD_DIM * sizeof(O) / 4 + simdgroup * 8 * KEYS;
    threadgroup O* weights =
        (threadgroup O*)(shared + KEYS * HEAD_DIM * sizeof(O) / 4 + 32 * KEYS) + simdgroup * 8 * KEYS;
    threadgroup float* square =
        shared + KEYS * HEAD_DIM * sizeof(O) / 4 + 32 * KEYS + 32 * KEYS * sizeof(O) / 4 + simdgroup * 64;
    const uint kv_offset = head / (HEADS / KV_HEADS) * HEAD_DIM;
    keys += ulong(start_of_slot) * STRIDE;
    values += ulong(start_of_slot) * STRIDE;
    const uint first_row = block * 32 + simdgroup * 8;

    // Eight rows of queries as matrices, through one 8x8 square of threadgroup memory.
    simdgroup_matrix<O, 8, 8> queries[PARTS];
    for (uint part = 0; part < PARTS; ++part) {
        for (uint i = lane; i < 64; i += 32) {
            const uint row = first_row + i / 8;
            weights[i] = row < rows ? O(q[(row * HEADS + head) * HEAD_DIM + part * 8 + i % 8]) : O(0.0f);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_load(queries[part], weights, 8);
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    simdgroup_matrix<float, 8, 8> sums[PARTS];
    for (uint part = 0; part < PARTS; ++part) {
        sums[part] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
    // Four lanes share a row of scores.
    const uint row = lane / 4;
    const uint own = position + first_row + row; // the row's position
    float highest = sinks != nullptr ? sinks[head] : -1.0e30f;
    float total = sinks != nullptr ? 1.0f : 0.0f;
    square[lane] = 0.0f;
    square[lane + 32] = 0.0f;

    const uint first_position = position + block * 32;
    const uint begin = WINDOW != 0 && first_position + 1 > WINDOW ? first_position + 1 - WINDOW : 0;
    const uint end = position + min(rows, block * 32 + 32);
    for (uint start = begin; start < end; start += KEYS) {
        load_cache_tile<STRIDE, HEAD_DIM, KEYS, WRAP>(keys + kv_offset, tile, start, end, thread_index);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint j = 0; j < KEYS / 8; ++j) {
            simdgroup_matrix<float, 8, 8> score = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
            for (uint part = 0; part < PARTS; ++part) {
                simdgroup_matrix<O, 8, 8> key;
                simdgroup_load(key, tile + j * 8 * HEAD_DIM + part * 8, HEAD_DIM, ulong2(0, 0), true);
                simdgroup_multiply_accumulate(score, queries[part], key, score);
            }
            simdgroup_store(score, scores + j * 8, KEYS);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        float values_of_lane[KEYS / 4];
        float top = highest;
        for (uint j = 0; j < KEYS / 4; ++j) {
            const uint column = lane % 4 + j * 4;
            const uint key = start + column;
            float score = scores[row * KEYS + column] * scale;
            if (softcap != 0.0f) {
                score = softcap * precise::tanh(score / softcap);
            }
            const bool seen = key <= own && key < end && (WINDOW == 0 || key + WINDOW > own);
            values_of_lane[j] = seen ? score : -1.0e30f;
            top = max(top, values_of_lane[j]);
        }
        top = max(top, simd_shuffle_xor(top, ushort(1)));
        top = max(top, simd_shuffle_xor(top, ushort(2)));
        const float correction = precise::exp(highest - top);
        highest = top;
        float sum = 0.0f;
        for (uint j = 0; j < KEYS / 4; ++j) {
            const float weight = values_of_lane[j] > -1.0e29f ? precise::exp(values_of_lane[j] - top) : 0.0f;
            weights[row * KEYS + lane % 4 + j * 4] = O(weight);
            sum += weight;
        }
        sum += simd_shuffle_xor(sum, ushort(1));
        sum += simd_shuffle_xor(sum, ushort(2));
        total = total * correction + sum;
        if (lane % 4 == 0) {
            square[row * 9] = correction;
        }
        // All are done with the keys: the values take their place.
        threadgroup_barrier(mem_flags::mem_threadgroup);
        load_cache_tile<STRIDE, HEAD_DIM, KEYS, WRAP>(values + kv_offset, tile, start, end, thread_index);
        simdgroup_matrix<float, 8, 8> diagonal;
        simdgroup_load(diagonal, square, 8);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint part = 0; part < PARTS; ++part) {
            simdgroup_matrix<float, 8, 8> scaled;
            simdgroup_multiply(scaled, diagonal, sums[part]);
            sums[part] = scaled;
        }
        for (uint j = 0; j < KEYS / 8; ++j) {
            simdgroup_matrix<O, 8, 8> weight;
            simdgroup_load(weight, weights + j * 8, KEYS);
            for (uint part = 0; part < PARTS; ++part) {
                simdgroup_matrix<O, 8, 8> value;
                simdgroup_load(value, tile + j * 8 * HEAD_DIM + part * 8, HEAD_DIM);
                simdgroup_multiply_accumulate(sums[part], weight, value, sums[part]);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    // Out through the square again.
    for (uint part = 0; part < PARTS; ++part) {
        simdgroup_store(sums[part], square, 8);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        if (first_row + row < rows) {
            for (uint i = lane % 4; i < 8; i += 4) {
                y[((first_row + row) * HEADS + head) * HEAD_DIM + part * 8 + i] = square[row * 8 + i] / total;
            }
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
}
