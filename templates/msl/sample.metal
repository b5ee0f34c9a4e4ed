// The choice of the next token of each row that wants one, in three steps: the highest logit, the tokens that may be drawn, the draw. Everything
// that decides is exact in any order (integers, maxima), so that the result depends on no schedule and the host's
// sampler, which does the same, chooses the same token.
//
// Bias, penalties, temperature, top-k, top-p and min-p in the order of vLLM, which is that of Hugging Face transformers with more. A token's
// weight is its probability relative to the best token's in units of 2^-24; tokens of weight 0 are never drawn. The draw adds
// Gumbel noise to log-probabilities and takes the maximum: noise of seed, step and token alone.

struct Candidate {
    uint key;    // logit, as an integer of the same order
    uint id;     // token
    uint weight; // relative probability
};

// Philox4x32-10 (Salmon et al., 2011), word 0 of counter (step, token, 0).
inline uint philox(uint2 step, uint token, uint2 key) {
    uint4 c = uint4(step.x, step.y, token, 0);
    for (uint i = 0; i < 10; ++i) {
        c = uint4(mulhi(0xCD9E8D57u, c.z) ^ c.y ^ key.x, 0xCD9E8D57u * c.z, mulhi(0xD2511F53u, c.x) ^ c.w ^ key.y,
                  0xD2511F53u * c.x);
        key += uint2(0x9E3779B9u, 0xBB67AE85u);
    }
    return c.x;
}

// Orders as floats do; larger is more probable.
inline uint ordered_bits(float value) {
    const uint bits = as_type<uint>(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

inline float from_ordered_bits(uint key) {
    return as_type<float>(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

// Whether the row has a penalty on how often it chose a token before.
inline bool counts_tokens(constant StepParams& row) {
    return (row.presence_penalty != 0.0f) | (row.frequency_penalty != 0.0f);
}

// The logit after bias and penalties; `seen` has a bit per token. A row that wants none of them reads none of the buffers.
inline float adjusted(float logit, uint id, device const uint* seen, device const float* logit_bias,
                      device const uint* times, constant StepParams& row) {
    if (row.biased != 0) {
        logit += logit_bias[id];
    }
    if (row.repeat_penalty != 1.0f && (seen[id / 32] >> (id % 32) & 1) != 0) {
        logit = logit > 0.0f ? logit / row.repeat_penalty : logit * row.repeat_penalty;
    }
    if (counts_tokens(row) && times[id] != 0) {
        logit -= fma(row.frequency_penalty, float(times[id]), row.presence_penalty);
    }
    return logit;
}

// A logit that fast math and the draw can take: neither infinite nor not a number (by its bits).
inline bool is_finite_logit(float logit) { return (as_type<uint>(logit) & 0x7F800000u) != 0x7F800000u; }

// Whether a token may be chosen; `allowed` has a bit per token, for a row that asks.
inline bool may_be_chosen(float logit, uint id, device const uint* allowed, constant StepParams& row) {
    return is_finite_logit(logit) && (row.masked == 0 || (allowed[id / 32] >> (id % 32) & 1) != 0);
}

// Whether anything but logits says what a row chooses; none of the loads waits for another.
inline bool asks(constant StepParams& row) {
    return (row.biased != 0) | (row.masked != 0) | (row.repeat_penalty != 1.0f) | counts_tokens(row);
}

// Highest key of this thread's part of a threadgroup's share, and its id. Logits are loaded four at a time, before it is known
// whether the row asks for more.
template <uint VOCAB, uint GROUPS>
inline uint2 best_of_part(device const float* logits, device const uint* seen, device const float* logit_bias,
                          device const uint* times, device const uint* allowed, constant StepParams& row, uint first) {
    constexpr uint STRIDE = GROUPS * 256;
    uint2 best = uint2(0, 0xFFFFFFFFu);
    for (uint start = first; start < VOCAB; start += 4 * STRIDE) {
        float four[4];
        #pragma clang loop unroll(full)
        for (uint i = 0; i < 4; ++i) {
            const uint id = start + i * STRIDE;
            four[i] = id < VOCAB ? logits[id] : 0.0f;
        }
        const bool more = asks(row);
        #pragma clang loop unroll(full)
        for (uint i = 0; i < 4; ++i) {
            const uint id = start + i * STRIDE;
            bool chosen = id < VOCAB && is_finite_logit(four[i]);
            if (more && chosen) {
                chosen = may_be_chosen(four[i], id, allowed, row);
                four[i] = adjusted(four[i], id, seen, logit_bias, times, row);
            }
            const uint key = chosen ? ordered_bits(four[i]) : 0;
            if (key > best.x) {
                best = uint2(key, id);
            }
        }
    }
    return best;
}

// Highest of the keys of a threadgroup of 8 simdgroups, the lowest id among equals; every thread gets it.
inline uint2 threadgroup_best(uint2 best, threadgroup uint* shared, uint simdgroup, uint lane) {
    const uint key = simd_max(best.x);
    const uint id = simd_min(best.x == key ? best.y : 0xFFFFFFFFu);
    if (lane == 0) {
        shared[simdgroup * 2] = key;
        shared[simdgroup * 2 + 1] = id;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    best = uint2(0, 0xFFFFFFFFu);
    for (uint i = 0; i < 8; ++i) {
        const uint2 other = uint2(shared[i * 2], shared[i * 2 + 1]);
        if (other.x > best.x || (other.x == best.x && other.y < best.y)) {
            best = other;
        }
    }
    return best;
}

// Sum over a threadgroup of 8 simdgroups of numbers below 2^32 each simdgroup's sum stays in; every thread gets it.
inline ulong threadgroup_total(ulong value, threadgroup uint* shared, uint simdgroup, uint lane) {
    const uint low = simd_sum(uint(value & 0xFFFFFF));
    const uint high = simd_sum(uint(value >> 24));
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (lane == 0) {
        shared[simdgroup * 2] = low;
        shared[simdgroup * 2 + 1] = high;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    ulong total = 0;
    for (uint i = 0; i < 8; ++i) {
        total += ulong(shared[i * 2]) + (ulong(shared[i * 2 + 1]) << 24);
    }
    return total;
}

// The sequence of a row; with one there is nothing to read.
template <uint SLOTS>
inline uint slot_of(constant StepParams& row) {
    return SLOTS == 1 ? 0 : row.slot;
}

// Step 1: best key and id of one threadgroup's share of the vocabulary. The first one empties the list of candidates.
template <uint VOCAB, uint GROUPS, uint SLOTS>
inline void best_logit(device const float* logits, device const uint* seen, device const float* logit_bias,
                       device const uint* times, device const uint* allowed, device uint* best, device atomic_uint* count,
                       threadgroup uint* shared, constant StepParams& row, uint2 group, uint thread_index,
                       uint simdgroup, uint lane) {
    const uint slot = slot_of<SLOTS>(row);
    logits += group.y * VOCAB;
    seen += slot * ((VOCAB + 31) / 32);
    logit_bias += slot * VOCAB;
    times += slot * VOCAB;
    allowed += slot * ((VOCAB + 31) / 32);
    best += slot * (2 * GROUPS);
    const uint first = group.x * 256 + thread_index;
    uint2 own = best_of_part<VOCAB, GROUPS>(logits, seen, logit_bias, times, allowed, row, first);
    own = threadgroup_best(own, shared, simdgroup, lane);
    // Of the rows of a sequence one chooses.
    if (thread_index == 0 && row.chooses != 0) {
        best[group.x * 2] = own.x;
        best[group.x * 2 + 1] = own.y;
        if (group.x == 0) {
            atomic_store_explicit(count + slot, 0u, memory_order_relaxed);
        }
    }
}

// Step 2: every token that may be drawn, with its weight, in no order.
template <uint VOCAB, uint GROUPS, uint SLOTS>
inline void collect_candidates(device const float* logits, device const uint* seen, device const float* logit_bias,
                               device const uint* times, device const uint* allowed, device const uint* best,
                               device atomic_uint* count, device Candidate* candidates, constant StepParams& row,
                               uint2 group, uint thread_index) {
    if (row.chooses == 0 || row.inverse_temperature == 0.0f) {
        return; // nothing, or greedy
    }
    const uint slot = slot_of<SLOTS>(row);
    logits += group.y * VOCAB;
    seen += slot * ((VOCAB + 31) / 32);
    logit_bias += slot * VOCAB;
    times += slot * VOCAB;
    allowed += slot * ((VOCAB + 31) / 32);
    best += slot * (2 * GROUPS);
    candidates += slot * VOCAB;
    uint top = 0;
    for (uint i = 0; i < GROUPS; ++i) {
        top = max(top, best[i * 2]);
    }
    const float highest = from_ordered_bits(top);
    for (uint id = group.x * 256 + thread_index; id < VOCAB; id += GROUPS * 256) {
        if (!may_be_chosen(logits[id], id, allowed, row)) {
            continue;
        }
        const float logit = adjusted(logits[id], id, seen, logit_bias, times, row);
        const uint weight = uint(precise::exp((logit - highest) * row.inverse_temperature) * 16777216.0f);
        if (weight > 0) {
            const uint at = atomic_fetch_add_explicit(count + slot, 1u, memory_order_relaxed);
            candidates[at].key = ordered_bits(logit);
            candidates[at].id = id;
            candidates[at].weight = weight;
        }
    }
}

// The highest key such that the candidates from it on are at least `wanted` in number, or in weight.
inline uint lowest_kept(device const Candidate* candidates, uint count, uint low, bool by_weight, ulong wanted,
                        threadgroup uint* shared, uint thread_index, uint simdgroup, uint lane) {
    uint high = 0xFFFFFFFFu; // fewer than wanted from here on; all of them from `low` on
    const uint floor = low;
    while (high - low > 1) {
        const uint middle = low + (high - low) / 2;
        ulong sum = 0;
        for (uint i = thread_index; i < count; i += 256) {
            if (candidates[i].key >= middle && candidates[i].key >= floor) {
                sum += by_weight ? candidates[i].weight : 1;
            }
        }
        if (threadgroup_total(sum, shared, simdgroup, lane) >= wanted) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// Total weight of the candidates from `low` on.
inline ulong kept_weight(device const Candidate* candidates, uint count, uint low, threadgroup uint* shared,
                         uint thread_index, uint simdgroup, uint lane) {
    ulong sum = 0;
    for (uint i = thread_index; i < count; i += 256) {
        if (candidates[i].key >= low) {
            sum += candidates[i].weight;
        }
    }
    return threadgroup_total(sum, shared, simdgroup, lane);
}

// Step 3, one threadgroup a row: filters and draw. The token goes where the slot's next step reads it and where the host
// does.
template <uint VOCAB, uint GROUPS, uint SLOTS>
inline void draw_token(device const uint* best, device const atomic_uint* counter, device const Candidate* candidates,
                       device uint* seen, device uint* times, device uint* next_token, device uint* chosen,
                       threadgroup uint* shared, constant StepParams& row, uint2 group, uint thread_index, uint simdgroup,
                       uint lane) {
    if (row.chooses == 0) {
        return;
    }
    const uint slot = slot_of<SLOTS>(row);
    best += slot * (2 * GROUPS);
    candidates += slot * VOCAB;
    seen += slot * ((VOCAB + 31) / 32);
    uint2 own = uint2(0, 0xFFFFFFFFu);
    if (row.inverse_temperature == 0.0f) {
        for (uint i = thread_index; i < GROUPS; i += 256) {
            if (best[i * 2] > own.x || (best[i * 2] == own.x && best[i * 2 + 1] < own.y)) {
                own = uint2(best[i * 2], best[i * 2 + 1]);
            }
        }
    } else {
        const uint count = atomic_load_explicit(counter + slot, memory_order_relaxed);
        uint low = 0;
        if (row.top_k > 0 && row.top_k < count) {
            low = lowest_kept(candidates, count, low, false, row.top_k, shared, thread_index, simdgroup, lane);
        }
        if (row.top_p < 16777216) {
            // A share of the total in units of 2^-24, rounded up.
            const ulong total = kept_weight(candidates, count, low, shared, thread_index, simdgroup, lane);
            const ulong wanted = (total >> 24) * row.top_p + (((total & 0xFFFFFF) * row.top_p + 0xFFFFFF) >> 24);
            low = lowest_kept(candidates, count, low, true, wanted, shared, thread_index, simdgroup, lane);
        }
        for (uint i = thread_index; i < count; i += 256) {
            const Candidate c = candidates[i];
            if (c.key >= low && c.weight >= row.min_p) {
                const uint random = philox(uint2(row.draw_low, row.draw_high), c.id, uint2(row.seed_low, row.seed_high));
                const float uniform = (float(random >> 9) + 0.5f) * 1.1920929e-7f;
                const float noise = -precise::log(-precise::log(uniform));
                const uint key = ordered_bits(precise::log(float(c.weight)) + noise);
                if (key > own.x || (key == own.x && c.id < own.y)) {
                    own = uint2(key, c.id);
                }
            }
        }
    }
    // The filters' sums have been read by all before `shared` is used again.
    threadgroup_barrier(mem_flags::mem_threadgroup);
    own = threadgroup_best(own, shared, simdgroup, lane);
    if (thread_index == 0) {
        const uint token = own.y;
        chosen[group.y] = token; // 0xFFFFFFFF where none may be chosen
        if (token != 0xFFFFFFFFu) {
            next_token[slot] = token;
            seen[token / 32] |= 1u << (token % 32);
            if (counts_tokens(row)) {
                times[slot * VOCAB + token] += 1;
            }
        }
    }
}
