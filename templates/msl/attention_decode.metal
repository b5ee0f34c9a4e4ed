// Attention of rows, each of a sequence and at a position of its own, over the KV cache, [position][kv head][HEAD_DIM],
// with online softmax. A threadgroup takes HEADS_SHARED query heads of one kv head, which share each read of keys and
// values, of one row over one part of its context; several parts are put together by attention_combine.
//
// In a simdgroup LANES_EACH lanes hold one position, eight elements each, so that it reads 32 / LANES_EACH positions at
// a time, STEPS times in a row before the softmax moves on. Scores are in powers of two.

constant constexpr float NO_SCORE = -1.0e30f;

constexpr uint lanes_each(uint head_dim) {
    return head_dim > 128 ? 32 : head_dim > 64 ? 16 : head_dim > 32 ? 8 : head_dim > 16 ? 4 : head_dim > 8 ? 2 : 1;
}

constexpr uint power_of_two(uint n) { return n > 8 ? 16 : n > 4 ? 8 : n > 2 ? 4 : n; }

inline void load8(device const float* p, thread float4* v) {
    v[0] = ((device const float4*)p)[0];
    v[1] = ((device const float4*)p)[1];
}

// Sums each of COUNT values over the EACH lanes of a position; the lane gets that of head
// (lane % EACH) / (EACH / COUNT). Lanes swap half of what they hold at each step.
template <uint COUNT, uint EACH>
inline float sum_heads(thread float* values, uint lane) {
    uint width = EACH / 2;
    for (uint n = COUNT; n > 1; n /= 2) {
        const bool upper = (lane & width) != 0;
        for (uint k = 0; k < n / 2; ++k) {
            const float kept = upper ? values[k + n / 2] : values[k];
            const float sent = upper ? values[k] : values[k + n / 2];
            values[k] = kept + simd_shuffle_xor(sent, ushort(width));
        }
        width /= 2;
    }
    float sum = values[0];
    for (uint w = EACH / COUNT / 2; w > 0; w /= 2) {
        sum += simd_shuffle_xor(sum, ushort(w));
    }
    return sum;
}

// Parts that a row's context is split into; the host dispatches as many as the longest needs.
template <uint WINDOW, uint UNSPLIT, uint PART_POSITIONS, uint MAX_PARTS>
inline uint context_parts(uint position) {
    const uint positions = WINDOW != 0 ? min(position + 1, WINDOW) : position + 1;
    return positions <= UNSPLIT ? 1 : min((positions + PART_POSITIONS - 1) / PART_POSITIONS, MAX_PARTS);
}

// Part `part` of `parts` of the positions that a row at `position` sees (WINDOW at most), for heads group * HEADS_SHARED
// and on. Its sequence begins at position `start_of_slot` of the cache, which holds WRAP positions of it if WRAP is not
// 0. WHOLE: y is [HEADS, HEAD_DIM] and gets the result of the one part; else it gets sums [parts][HEADS][HEAD_DIM] and
// then the highest score and the weight of each, [parts][HEADS][2]. `sinks`, where there are any, [HEADS], are scores
// without a value, which the first part counts.
template <uint HEADS, uint KV_HEADS, uint HEAD_DIM, uint HEADS_SHARED, uint SIMDGROUPS, uint STEPS, uint WINDOW,
          uint WRAP, bool WHOLE, typename T>
inline void attend(device const float* q, device const T* keys, device const T* values, device float* y,
                   threadgroup float* shared, uint start_of_slot, uint position, float scale, float softcap, uint group,
                   uint part, uint parts, uint simdgroup, uint lane, device const float* sinks) {
    constexpr uint EACH = lanes_each(HEAD_DIM);
    constexpr uint VECTORS = (HEAD_DIM + 8 * EACH - 1) / (8 * EACH);
    constexpr uint AT_ONCE = 32 / EACH;
    constexpr uint COUNT = power_of_two(HEADS_SHARED);
    constexpr uint WIDTH = KV_HEADS * HEAD_DIM;
    constexpr float LOG2_E = 1.44269504f;
    const uint head = group * HEADS_SHARED;
    keys += ulong(start_of_slot) * cache_stride(WIDTH);
    values += ulong(start_of_slot) * cache_stride(WIDTH);
    const uint kv_offset = head / (HEADS / KV_HEADS) * HEAD_DIM;
    const uint place = lane / EACH;
    const uint element = lane % EACH * 8;

    const uint first = WINDOW != 0 && position + 1 > WINDOW ? position + 1 - WINDOW : 0;
    const uint length = (position - first) / parts + 1;
    const uint begin = min(first + part * length, position + 1);
    const uint end = min(begin + length, position + 1);

    float4 query[HEADS_SHARED * VECTORS * 2];
    float4 acc[HEADS_SHARED * VECTORS * 2];
    for (uint i = 0; i < HEADS_SHARED * VECTORS; ++i) {
        const uint e = i % VECTORS * 8 * EACH + element;
        const float factor = softcap == 0.0f ? scale * LOG2_E : scale;
        const bool inside = HEAD_DIM % (8 * EACH) == 0 || e < HEAD_DIM;
        load8(q + (head + i / VECTORS) * HEAD_DIM + (inside ? e : 0), query + 2 * i);
        query[2 * i] *= inside ? factor : 0.0f;
        query[2 * i + 1] *= inside ? factor : 0.0f;
        acc[2 * i] = 0.0f;
        acc[2 * i + 1] = 0.0f;
    }
    float highest = NO_SCORE;
    float total = 0.0f;
    if (sinks != nullptr && part == 0 && simdgroup == 0) {
        // As if it had come before the first key.
        highest = sinks[head + min(lane % EACH / (EACH / COUNT), HEADS_SHARED - 1)] * LOG2_E;
        total = place == 0 ? 1.0f : 0.0f;
    }
    for (uint start = begin + simdgroup * (AT_ONCE * STEPS); start < end; start += SIMDGROUPS * AT_ONCE * STEPS) {
        float scores[STEPS];
        float top = NO_SCORE;
        for (uint i = 0; i < STEPS; ++i) {
            const uint at = min(start + i * AT_ONCE + place, end - 1);
            const auto key = cache_head<WIDTH>(keys, WRAP != 0 ? at % WRAP : at, kv_offset);
            float sums[COUNT];
            for (uint h = 0; h < COUNT; ++h) {
                sums[h] = 0.0f;
            }
            for (uint n = 0; n < VECTORS; ++n) {
                const uint e = n * 8 * EACH + element;
                float4 k[2];
                load_cache8(key, HEAD_DIM % (8 * EACH) == 0 || e < HEAD_DIM ? e : 0, k);
                for (uint h = 0; h < HEADS_SHARED; ++h) {
                    const uint v = 2 * (h * VECTORS + n);
                    sums[h] = fma4(k[0], query[v], fma4(k[1], query[v + 1], sums[h]));
                }
            }
            float score = sum_heads<COUNT, EACH>(sums, lane);
            if (softcap != 0.0f) {
                score = softcap * LOG2_E * precise::tanh(score / softcap);
            }
            scores[i] = start + i * AT_ONCE + place < end ? score : NO_SCORE;
            top = max(top, scores[i]);
        }
        for (uint w = EACH; w < 32; w *= 2) {
            top = max(top, simd_shuffle_xor(top, ushort(w)));
        }
        top = max(top, highest);
        const float correction = exp2(highest - top);
        highest = top;
        total *= correction;
        for (uint h = 0; h < HEADS_SHARED; ++h) {
            const float c = simd_shuffle(correction, ushort(h * (EACH / COUNT)));
            for (uint n = 0; n < VECTORS * 2; ++n) {
                acc[h * VECTORS * 2 + n] *= c;
            }
        }
        for (uint i = 0; i < STEPS; ++i) {
            const uint at = min(start + i * AT_ONCE + place, end - 1);
            const auto value = cache_head<WIDTH>(values, WRAP != 0 ? at % WRAP : at, kv_offset);
            const float weight = exp2(scores[i] - highest);
            total += weight;
            float weights[HEADS_SHARED];
            for (uint h = 0; h < HEADS_SHARED; ++h) {
                weights[h] = simd_shuffle(weight, ushort(place * EACH + h * (EACH / COUNT)));
            }
            for (uint n = 0; n < VECTORS; ++n) {
                const uint e = n * 8 * EACH + element;
                float4 v[2];
                load_cache8(value, HEAD_DIM % (8 * EACH) == 0 || e < HEAD_DIM ? e : 0, v);
                for (uint h = 0; h < HEADS_SHARED; ++h) {
                    acc[2 * (h * VECTORS + n)] += weights[h] * v[0];
                    acc[2 * (h * VECTORS + n) + 1] += weights[h] * v[1];
                }
            }
        }
    }
    for (uint w = EACH; w < 32; w *= 2) {
        total += simd_shuffle_xor(total, ushort(w));
        for (uint i = 0; i < HEADS_SHARED * VECTORS * 2; ++i) {
            acc[i] += simd_shuffle_xor(acc[i], ushort(w));
        }
    }
    threadgroup float* scales = shared + SIMDGROUPS * HEADS_SHARED * HEAD_DIM;
    for (uint h = 0; h < HEADS_SHARED; ++h) {
        const uint at = simdgroup * HEADS_SHARED + h;
        for (uint n = 0; n < VECTORS; ++n) {
            const uint e = n * 8 * EACH + element;
            if (place == 0 && (HEAD_DIM % (8 * EACH) == 0 || e < HEAD_DIM)) {
                threadgroup float4* own = (threadgroup float4*)(shared + at * HEAD_DIM + e);
                own[0] = acc[2 * (h * VECTORS + n)];
                own[1] = acc[2 * (h * VECTORS + n) + 1];
            }
        }
        if (lane == h * (EACH / COUNT)) {
            scales[2 * at] = highest;
            scales[2 * at + 1] = total;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = simdgroup * 32 + lane; i < HEADS_SHARED * HEAD_DIM / 4; i += SIMDGROUPS * 32) {
        const uint h = i / (HEAD_DIM / 4);
        float top = NO_SCORE;
        for (uint s = 0; s < SIMDGROUPS; ++s) {
            top = max(top, scales[2 * (s * HEADS_SHARED + h)]);
        }
        float4 sum = 0.0f;
        float weight = 0.0f;
        for (uint s = 0; s < SIMDGROUPS; ++s) {
            const uint at = s * HEADS_SHARED + h;
            const float c = exp2(scales[2 * at] - top);
            sum += c * *(threadgroup const float4*)(shared + at * HEAD_DIM + i % (HEAD_DIM / 4) * 4);
            weight += c * scales[2 * at + 1];
        }
        if (WHOLE) {
            ((device float4*)(y + head * HEAD_DIM))[i] = sum / weight;
        } else {
            ((device float4*)(y + (part * HEADS + head) * HEAD_DIM))[i] = sum;
            if (i % (HEAD_DIM / 4) == 0) {
                device float* scale_of = y + parts * HEADS * HEAD_DIM + (part * HEADS + head + h) * 2;
                scale_of[0] = top;
                scale_of[1] = weight;
            }
        }
    }
}

// A row over all that it sees.
template <uint HEADS, uint KV_HEADS, uint HEAD_DIM, uint HEADS_SHARED, uint SIMDGROUPS, uint STEPS, uint WINDOW,
          uint WRAP, typename T>
inline void attention_whole(device const float* q, device const T* keys, device const T* values, device float* y,
                            threadgroup float* shared, uint start_of_slot, uint position, float scale, float softcap,
                            uint group, uint, uint row, uint simdgroup, uint lane,
                            device const float* sinks = nullptr) {
    attend<HEADS, KV_HEADS, HEAD_DIM, HEADS_SHARED, SIMDGROUPS, STEPS, WINDOW, WRAP, true>(
        q + row * (HEADS * HEAD_DIM), keys, values, y + row * (HEADS * HEAD_DIM), shared, start_of_slot, position, scale,
        softcap, group, 0, 1, simdgroup, lane, sinks);
}

// A row over a part of what it sees; y has room for MAX_PARTS parts of each row.
template <uint HEADS, uint KV_HEADS, uint HEAD_DIM, uint HEADS_SHARED, uint SIMDGROUPS, uint STEPS, uint WINDOW,
          uint WRAP, uint UNSPLIT, uint PART_POSITIONS, uint MAX_PARTS, typename T>
inline void attention_part(device const float* q, device const T* keys, device const T* values, device float* y,
                           threadgroup float* shared, uint start_of_slot, uint position, float scale, float softcap,
                           uint group, uint part, uint row, uint simdgroup, uint lane,
                           device const float* sinks = nullptr) {
    const uint parts = context_parts<WINDOW, UNSPLIT, PART_POSITIONS, MAX_PARTS>(position);
    if (part < parts) {
        attend<HEADS, KV_HEADS, HEAD_DIM, HEADS_SHARED, SIMDGROUPS, STEPS, WINDOW, WRAP, false>(
            q + row * (HEADS * HEAD_DIM), keys, values, y + row * (MAX_PARTS * HEADS * (HEAD_DIM + 2)), shared,
            start_of_slot, position, scale, softcap, group, part, parts, simdgroup, lane, sinks);
    }
}

// Puts the parts of one head of a row together; `shared` holds SIMDGROUPS * HEAD_DIM floats.
template <uint HEADS, uint HEAD_DIM, uint SIMDGROUPS, uint WINDOW, uint UNSPLIT, uint PART_POSITIONS, uint MAX_PARTS>
inline void attention_combine(device const float* sums, device float* y, threadgroup float* shared, uint position,
                              uint head, uint row, uint simdgroup, uint lane) {
    const uint parts = context_parts<WINDOW, UNSPLIT, PART_POSITIONS, MAX_PARTS>(position);
    sums += row * (MAX_PARTS * HEADS * (HEAD_DIM + 2));
    y += row * (HEADS * HEAD_DIM);
    constexpr uint VECTORS = (HEAD_DIM / 4 + 31) / 32;
    device const float2* scales = (device const float2*)(sums + parts * HEADS * HEAD_DIM);
    // A lane for each part.
    static_assert(MAX_PARTS <= 32, "a simdgroup holds what all parts have to say");
    const float2 own = lane < parts ? scales[lane * HEADS + head] : float2(NO_SCORE, 0.0f);
    const float factor = exp2(own.x - simd_max(own.x));
    const float weight = simd_sum(own.y * factor);
    float4 acc[VECTORS];
    for (uint n = 0; n < VECTORS; ++n) {
        acc[n] = 0.0f;
    }
    for (uint part = simdgroup; part < parts; part += SIMDGROUPS) {
        const float c = simd_shuffle(factor, ushort(part));
        device const float4* sum = (device const float4*)(sums + (part * HEADS + head) * HEAD_DIM);
        for (uint n = 0; n < VECTORS; ++n) {
            if (HEAD_DIM % 128 == 0 || lane + n * 32 < HEAD_DIM / 4) {
                acc[n] += c * sum[lane + n * 32];
            }
        }
    }
    for (uint n = 0; n < VECTORS; ++n) {
        if (HEAD_DIM % 128 == 0 || lane + n * 32 < HEAD_DIM / 4) {
            ((threadgroup float4*)(shared + simdgroup * HEAD_DIM))[lane + n * 32] = acc[n];
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = simdgroup * 32 + lane; i < HEAD_DIM; i += SIMDGROUPS * 32) {
        float sum = 0.0f;
        for (uint s = 0; s < SIMDGROUPS; ++s) {
            sum += shared[s * HEAD_DIM + i];
        }
        y[head * HEAD_DIM + i] = sum / weight;
    }
}
