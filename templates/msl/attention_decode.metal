// Attention of rows, each of a sequence and at a position of its own, over the KV cache, [position][kv head][HEAD_DIM],
// with online softmax. A threadgroup takes HEADS_SHARED query heads of one kv head, which share each read of keys and
// values, of one row over one part of its context; several parts are put together by attention_combine.
//
// In a simdgroup LANES_EACH lanes hold one position, ELEMENTS elements each, so that it reads 32 / LANES_EACH positions at
// a time, STEPS times in a row before the softmax moves on. Where that many heads of that many elements would not fit a
// lane's registers, SLICES simdgroups share a position: each has its slice of all heads' elements, and scores are put
// together in threadgroup memory. The keys of the next round and a round's values are on their way while scores are made. Scores
// are in powers of two.

constant constexpr float NO_SCORE = -1.0e30f;

// Lanes that hold `width` elements of a position, so many each.
constexpr uint lanes_each(uint width, uint elements) {
    return width > 16 * elements ? 32 : width > 8 * elements ? 16 : width > 4 * elements ? 8 : width > 2 * elements ? 4 : width > elements ? 2 : 1;
}

constexpr uint power_of_two(uint n) { return n > 8 ? 16 : n > 4 ? 8 : n > 2 ? 4 : n; }

template <uint COUNT>
inline void load_floats(device const float* p, thread float* v) {
    #pragma clang loop unroll(full)
    for (uint i = 0; i < COUNT / 4; ++i) {
        const float4 four = ((device const float4*)p)[i];
        #pragma clang loop unroll(full)
        for (uint e = 0; e < 4; ++e) {
            v[4 * i + e] = four[e];
        }
    }
    if (COUNT % 4 != 0) {
        const float2 two = *(device const float2*)p;
        v[0] = two.x;
        v[1] = two.y;
    }
}

template <uint COUNT>
inline void store_floats(threadgroup float* p, thread const float* v) {
    #pragma clang loop unroll(full)
    for (uint i = 0; i < COUNT / 4; ++i) {
        ((threadgroup float4*)p)[i] = float4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
    }
    if (COUNT % 4 != 0) {
        *(threadgroup float2*)p = float2(v[0], v[1]);
    }
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

// A lane's elements of the positions first, first + AT_ONCE.., which are `last` at most.
template <uint WIDTH, uint STEPS, uint AT_ONCE, uint WRAP, uint VECTORS, typename T, typename C>
inline void load_round(device const T* cache, uint first, uint last, uint offset, thread const uint* elements,
                       thread C* round) {
    #pragma clang loop unroll(full)
    for (uint i = 0; i < STEPS; ++i) {
        const uint at = min(first + i * AT_ONCE, last);
        const auto head = cache_head<WIDTH>(cache, WRAP != 0 ? at % WRAP : at, offset);
        #pragma clang loop unroll(full)
        for (uint n = 0; n < VECTORS; ++n) {
            load_elements(head, elements[n], round[i * VECTORS + n]);
        }
    }
}

// Heads whose sums are put together at a time, so that those of a threadgroup's simdgroups take 16 KB at most.
constexpr uint heads_at_once(uint heads, uint simdgroups, uint width) {
    return heads * simdgroups * width <= 4096 ? heads : simdgroups * width >= 4096 ? 1 : 4096 / (simdgroups * width);
}

// Part `part` of `parts` of the positions that a row at `position` sees (WINDOW at most), for heads group * HEADS_SHARED
// and on. Its sequence begins at position `start_of_slot` of the cache, which holds WRAP positions of it if WRAP is not
// 0. WHOLE: y is [HEADS, HEAD_DIM] and gets the result of the one part; else it gets sums [parts][HEADS][HEAD_DIM] and
// then the highest score and the weight of each, [parts][HEADS][2]. `sinks`, where there are any, [HEADS], are scores
// without a value, which the first part counts.
template <uint HEADS, uint KV_HEADS, uint HEAD_DIM, uint HEADS_SHARED, uint SIMDGROUPS, uint STEPS, uint ELEMENTS,
          uint SLICES, uint WINDOW, uint WRAP, bool WHOLE, typename T>
inline void attend(device const float* q, device const T* keys, device const T* values, device float* y,
                   threadgroup float* shared, uint start_of_slot, uint position, float scale, float softcap, uint group,
                   uint part, uint parts, uint simdgroup, uint lane, device const float* sinks) {
    constexpr uint OWN = HEAD_DIM / SLICES;
    constexpr uint EACH = lanes_each(OWN, ELEMENTS);
    constexpr uint VECTORS = (OWN + ELEMENTS * EACH - 1) / (ELEMENTS * EACH);
    constexpr bool FULL = OWN == ELEMENTS * EACH * VECTORS;
    constexpr uint AT_ONCE = 32 / EACH;
    constexpr uint COUNT = power_of_two(HEADS_SHARED);
    constexpr uint LANES_OF_HEAD = EACH / COUNT;
    constexpr uint WIDTH = KV_HEADS * HEAD_DIM;
    constexpr uint TEAMS = SIMDGROUPS / SLICES;
    constexpr float LOG2_E = 1.44269504f;
    const uint head = group * HEADS_SHARED;
    const uint team = simdgroup / SLICES;
    const uint slice = simdgroup % SLICES * OWN;
    keys += ulong(start_of_slot) * cache_stride(WIDTH);
    values += ulong(start_of_slot) * cache_stride(WIDTH);
    const uint kv_offset = head / (HEADS / KV_HEADS) * HEAD_DIM;
    const uint place = lane / EACH;

    const uint first = WINDOW != 0 && position + 1 > WINDOW ? position + 1 - WINDOW : 0;
    const uint length = (position - first) / parts + 1;
    const uint begin = min(first + part * length, position + 1);
    const uint end = min(begin + length, position + 1);

    // A lane's elements, the first of each vector; of lanes beyond the last the slice's first, which count for nothing.
    uint elements[VECTORS];
    bool inside[VECTORS];
    float query[HEADS_SHARED * VECTORS * ELEMENTS];
    float acc[HEADS_SHARED * VECTORS * ELEMENTS];
    #pragma clang loop unroll(full)
    for (uint n = 0; n < VECTORS; ++n) {
        const uint e = (n * EACH + lane % EACH) * ELEMENTS;
        inside[n] = FULL || e < OWN;
        elements[n] = slice + (inside[n] ? e : 0);
        #pragma clang loop unroll(full)
        for (uint h = 0; h < HEADS_SHARED; ++h) {
            const float factor = softcap == 0.0f ? scale * LOG2_E : scale;
            const uint at = (h * VECTORS + n) * ELEMENTS;
            load_floats<ELEMENTS>(q + (head + h) * HEAD_DIM + elements[n], query + at);
            #pragma clang loop unroll(full)
            for (uint e = 0; e < ELEMENTS; ++e) {
                query[at + e] *= inside[n] ? factor : 0.0f;
                acc[at + e] = 0.0f;
            }
        }
    }
    float highest = NO_SCORE;
    float total = 0.0f;
    if (sinks != nullptr && part == 0 && team == 0) {
        // As if it had come before the first key.
        highest = sinks[head + min(lane % EACH / LANES_OF_HEAD, HEADS_SHARED - 1)] * LOG2_E;
        total = place == 0 ? 1.0f : 0.0f;
    }
    // Scores of two rounds, so that one round's are read while the next one's are written.
    // Elements of the positions of a round that begins at `start`: those beyond the last repeat it.
    CacheElements<ELEMENTS> next_keys[STEPS * VECTORS];
    const uint ahead = team * (AT_ONCE * STEPS) + place;
    if (begin + team * (AT_ONCE * STEPS) < end) {
        load_round<WIDTH, STEPS, AT_ONCE, WRAP, VECTORS>(keys, begin + ahead, end - 1, kv_offset, elements, next_keys);
    }
    uint turn = 0;
    for (uint base = begin; base < end; base += TEAMS * AT_ONCE * STEPS) {
        const uint start = base + team * (AT_ONCE * STEPS);
        if (SLICES == 1 && start >= end) {
            break;
        }
        CacheElements<ELEMENTS> own_values[STEPS * VECTORS];
        float scores[STEPS];
        #pragma clang loop unroll(full)
        for (uint i = 0; i < STEPS; ++i) {
            scores[i] = 0.0f;
        }
        if (start < end) {
            load_round<WIDTH, STEPS, AT_ONCE, WRAP, VECTORS>(values, start + place, end - 1, kv_offset, elements, own_values);
            #pragma clang loop unroll(full)
            for (uint i = 0; i < STEPS; ++i) {
                float sums[COUNT] = {};
                #pragma clang loop unroll(full)
                for (uint n = 0; n < VECTORS; ++n) {
                    float k[ELEMENTS];
                    decode_elements(next_keys[i * VECTORS + n], k);
                    #pragma clang loop unroll(full)
                    for (uint h = 0; h < HEADS_SHARED; ++h) {
                        #pragma clang loop unroll(full)
                        for (uint e = 0; e < ELEMENTS; ++e) {
                            sums[h] = fma(k[e], query[(h * VECTORS + n) * ELEMENTS + e], sums[h]);
                        }
                    }
                }
                scores[i] = sum_heads<COUNT, EACH>(sums, lane);
            }
            const uint next = start + TEAMS * AT_ONCE * STEPS;
            if (next < end) {
                load_round<WIDTH, STEPS, AT_ONCE, WRAP, VECTORS>(keys, next + place, end - 1, kv_offset, elements, next_keys);
            }
        }
        if (SLICES > 1) {
            threadgroup float* exchange = shared + turn * (SIMDGROUPS * STEPS * 32) + lane;
            turn = 1 - turn;
            #pragma clang loop unroll(full)
            for (uint i = 0; i < STEPS; ++i) {
                exchange[(simdgroup * STEPS + i) * 32] = scores[i];
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
            #pragma clang loop unroll(full)
            for (uint i = 0; i < STEPS; ++i) {
                scores[i] = exchange[(team * SLICES * STEPS + i) * 32];
                #pragma clang loop unroll(full)
                for (uint s = 1; s < SLICES; ++s) {
                    scores[i] += exchange[((team * SLICES + s) * STEPS + i) * 32];
                }
            }
            if (start >= end) {
                continue;
            }
        }
        float top = highest;
        #pragma clang loop unroll(full)
        for (uint i = 0; i < STEPS; ++i) {
            if (softcap != 0.0f) {
                scores[i] = softcap * LOG2_E * precise::tanh(scores[i] / softcap);
            }
            scores[i] = start + i * AT_ONCE + place < end ? scores[i] : NO_SCORE;
            top = max(top, scores[i]);
        }
        for (uint w = EACH; w < 32; w *= 2) {
            top = max(top, simd_shuffle_xor(top, ushort(w)));
        }
        // Once the highest scores are found they stay, and sums with them.
        if (simd_any(top > highest)) {
            const float correction = exp2(highest - top);
            highest = top;
            total *= correction;
            #pragma clang loop unroll(full)
            for (uint h = 0; h < HEADS_SHARED; ++h) {
                const float c = simd_shuffle(correction, ushort(h * LANES_OF_HEAD));
                #pragma clang loop unroll(full)
                for (uint e = 0; e < VECTORS * ELEMENTS; ++e) {
                    acc[h * VECTORS * ELEMENTS + e] *= c;
                }
            }
        }
        #pragma clang loop unroll(full)
        for (uint i = 0; i < STEPS; ++i) {
            const float weight = exp2(scores[i] - highest);
            total += weight;
            float weights[HEADS_SHARED];
            #pragma clang loop unroll(full)
            for (uint h = 0; h < HEADS_SHARED; ++h) {
                weights[h] = simd_shuffle(weight, ushort(place * EACH + h * LANES_OF_HEAD));
            }
            #pragma clang loop unroll(full)
            for (uint n = 0; n < VECTORS; ++n) {
                float v[ELEMENTS];
                decode_elements(own_values[i * VECTORS + n], v);
                #pragma clang loop unroll(full)
                for (uint h = 0; h < HEADS_SHARED; ++h) {
                    #pragma clang loop unroll(full)
                    for (uint e = 0; e < ELEMENTS; ++e) {
                        const uint own = (h * VECTORS + n) * ELEMENTS + e;
                        acc[own] = fma(weights[h], v[e], acc[own]);
                    }
                }
            }
        }
    }
    for (uint w = EACH; w < 32; w *= 2) {
        total += simd_shuffle_xor(total, ushort(w));
        #pragma clang loop unroll(full)
        for (uint i = 0; i < HEADS_SHARED * VECTORS * ELEMENTS; ++i) {
            acc[i] += simd_shuffle_xor(acc[i], ushort(w));
        }
    }
    // Highest score and weight of each head from each team, then the sums of some heads at a time.
    constexpr uint ROUND = heads_at_once(HEADS_SHARED, SIMDGROUPS, OWN);
    threadgroup float* sums = shared;
    threadgroup float* scales = shared + ROUND * TEAMS * HEAD_DIM;
    if (SLICES > 1) {
        // All have read the last scores.
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    #pragma clang loop unroll(full)
    for (uint h = 0; h < HEADS_SHARED; ++h) {
        if (slice == 0 && lane == h * LANES_OF_HEAD) {
            scales[2 * (team * HEADS_SHARED + h)] = highest;
            scales[2 * (team * HEADS_SHARED + h) + 1] = total;
        }
    }
    #pragma clang loop unroll(full)
    for (uint round = 0; round < HEADS_SHARED; round += ROUND) {
        if (round > 0) {
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        #pragma clang loop unroll(full)
        for (uint h = round; h < HEADS_SHARED && h < round + ROUND; ++h) {
            #pragma clang loop unroll(full)
            for (uint n = 0; n < VECTORS; ++n) {
                if (place == 0 && inside[n]) {
                    store_floats<ELEMENTS>(sums + ((h - round) * TEAMS + team) * HEAD_DIM + elements[n],
                                           acc + (h * VECTORS + n) * ELEMENTS);
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const uint here = min(ROUND, HEADS_SHARED - round) * HEAD_DIM / 4;
        for (uint i = simdgroup * 32 + lane; i < here; i += SIMDGROUPS * 32) {
            const uint h = round + i / (HEAD_DIM / 4);
            const uint element = i % (HEAD_DIM / 4) * 4;
            float top = NO_SCORE;
            for (uint t = 0; t < TEAMS; ++t) {
                top = max(top, scales[2 * (t * HEADS_SHARED + h)]);
            }
            float4 sum = 0.0f;
            float weight = 0.0f;
            for (uint t = 0; t < TEAMS; ++t) {
                const uint at = t * HEADS_SHARED + h;
                const float c = exp2(scales[2 * at] - top);
                sum += c * *(threadgroup const float4*)(sums + ((h - round) * TEAMS + t) * HEAD_DIM + element);
                weight += c * scales[2 * at + 1];
            }
            if (WHOLE) {
                *(device float4*)(y + (head + h) * HEAD_DIM + element) = sum / weight;
            } else {
                *(device float4*)(y + (part * HEADS + head + h) * HEAD_DIM + element) = sum;
                if (element == 0) {
                    device float* scale_of = y + parts * HEADS * HEAD_DIM + (part * HEADS + head + h) * 2;
                    scale_of[0] = top;
                    scale_of[1] = weight;
                }
            }
        }
    }
}

// A row over all that it sees.
template <uint HEADS, uint KV_HEADS, uint HEAD_DIM, uint HEADS_SHARED, uint SIMDGROUPS, uint STEPS, uint ELEMENTS,
          uint SLICES, uint WINDOW, uint WRAP, typename T>
inline void attention_whole(device const float* q, device const T* keys, device const T* values, device float* y,
                            threadgroup float* shared, uint start_of_slot, uint position, float scale, float softcap,
                            uint group, uint, uint row, uint simdgroup, uint lane,
                            device const float* sinks = nullptr) {
    attend<HEADS, KV_HEADS, HEAD_DIM, HEADS_SHARED, SIMDGROUPS, STEPS, ELEMENTS, SLICES, WINDOW, WRAP, true>(
        q + row * (HEADS * HEAD_DIM), keys, values, y + row * (HEADS * HEAD_DIM), shared, start_of_slot, position, scale,
        softcap, group, 0, 1, simdgroup, lane, sinks);
}

// A row over a part of what it sees; y has room for MAX_PARTS parts of each row.
template <uint HEADS, uint KV_HEADS, uint HEAD_DIM, uint HEADS_SHARED, uint SIMDGROUPS, uint STEPS, uint ELEMENTS,
          uint SLICES, uint WINDOW, uint WRAP, uint UNSPLIT, uint PART_POSITIONS, uint MAX_PARTS, typename T>
inline void attention_part(device const float* q, device const T* keys, device const T* values, device float* y,
                           threadgroup float* shared, uint start_of_slot, uint position, float scale, float softcap,
                           uint group, uint part, uint row, uint simdgroup, uint lane,
                           device const float* sinks = nullptr) {
    const uint parts = context_parts<WINDOW, UNSPLIT, PART_POSITIONS, MAX_PARTS>(position);
    if (part < parts) {
        attend<HEADS, KV_HEADS, HEAD_DIM, HEADS_SHARED, SIMDGROUPS, STEPS, ELEMENTS, SLICES, WINDOW, WRAP, false>(
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
    constexpr uint TURNS = (MAX_PARTS + 31) / 32;
    device const float2* scales = (device const float2*)(sums + parts * HEADS * HEAD_DIM);
    // A lane has every 32nd part.
    float2 own[TURNS];
    float highest = NO_SCORE;
    #pragma clang loop unroll(full)
    for (uint i = 0; i < TURNS; ++i) {
        const uint part = i * 32 + lane;
        own[i] = part < parts ? scales[part * HEADS + head] : float2(NO_SCORE, 0.0f);
        highest = max(highest, own[i].x);
    }
    highest = simd_max(highest);
    float weight = 0.0f;
    #pragma clang loop unroll(full)
    for (uint i = 0; i < TURNS; ++i) {
        own[i].x = exp2(own[i].x - highest);
        weight += own[i].y * own[i].x;
    }
    weight = simd_sum(weight);
    float4 acc[VECTORS];
    #pragma clang loop unroll(full)
    for (uint n = 0; n < VECTORS; ++n) {
        acc[n] = 0.0f;
    }
    #pragma clang loop unroll(full)
    for (uint i = 0; i < TURNS; ++i) {
        #pragma clang loop unroll(full)
        for (uint first = 0; first < 32; first += SIMDGROUPS) {
            const uint part = i * 32 + first + simdgroup;
            const float c = simd_shuffle(own[i].x, ushort(first + simdgroup));
            if (part < parts) {
                device const float4* sum = (device const float4*)(sums + (part * HEADS + head) * HEAD_DIM);
                #pragma clang loop unroll(full)
                for (uint n = 0; n < VECTORS; ++n) {
                    if (HEAD_DIM % 128 == 0 || lane + n * 32 < HEAD_DIM / 4) {
                        acc[n] += c * sum[lane + n * 32];
                    }
                }
            }
        }
    }
    #pragma clang loop unroll(full)
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
