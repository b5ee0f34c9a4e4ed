// The choice of experts. A simdgroup holds a row's scores, those of experts 32 i + lane in element i, as keys that order as
// the scores do, so that the choice is exact: the best come first, of equal ones that of the lower index.

// A float as an integer of the same order; more than 0, which stands for none.
inline uint order_key(float x) {
    const uint bits = as_type<uint>(x);
    // Zeros of either sign are equal.
    return bits > 0x80000000u ? max(~bits, 1u) : bits | 0x80000000u;
}

// SCORES: 0 softmax over all experts, 1 over the chosen ones, 2 sigmoid. VECTOR: 1 a vector is added to the scores for the choice,
// 2 it multiplies the weights, 0 there is none. With GROUPS groups of neighbours experts come from
// CHOSEN_GROUPS of them alone, which are judged by the sum of their JUDGED best.
template <uint EXPERTS, uint CHOSEN, uint SCORES, uint VECTOR, uint GROUPS, uint CHOSEN_GROUPS, uint JUDGED>
struct Routing {
    static constexpr constant uint COUNT = (EXPERTS + 31) / 32;

    // 1 / (1 + exp(-x)), and what softmax is made of.
    static inline float sigmoid(float x) { return 1.0f / (1.0f + precise::exp(min(-x, 80.0f))); }

    // Largest logit and the sum of exp(logit - largest) of all experts.
    static inline float2 softmax_of_all(device const float* logits, uint lane) {
        float largest = logits[min(lane, EXPERTS - 1)];
        for (uint i = 1; i < COUNT; ++i) {
            largest = max(largest, logits[min(i * 32 + lane, EXPERTS - 1)]);
        }
        largest = simd_max(largest);
        float sum = 0.0f;
        for (uint i = 0; i < COUNT; ++i) {
            if (i * 32 + lane < EXPERTS) {
                sum += precise::exp(logits[i * 32 + lane] - largest);
            }
        }
        return float2(largest, simd_sum(sum));
    }

    // What experts are chosen by.
    static inline void choice_keys(device const float* logits, device const float* vector, thread uint* keys, uint lane) {
        const float2 all = SCORES == 0 && (VECTOR == 1 || GROUPS > 1) ? softmax_of_all(logits, lane) : float2(0.0f, 1.0f);
        float scores[COUNT];
        #pragma clang loop unroll(full)
        for (uint i = 0; i < COUNT; ++i) {
            const uint expert = min(i * 32 + lane, EXPERTS - 1);
            float score = logits[expert];
            if (SCORES == 2) {
                score = sigmoid(score);
            } else if (SCORES == 0 && (VECTOR == 1 || GROUPS > 1)) {
                score = precise::exp(score - all.x) / all.y;
            }
            scores[i] = VECTOR == 1 ? score + vector[expert] : score;
            keys[i] = i * 32 + lane < EXPERTS ? order_key(scores[i]) : 0;
        }
        if (GROUPS > 1) {
            keep_groups(scores, keys, lane);
        }
    }

    // Leaves the experts of the best groups.
    static inline void keep_groups(thread const float* scores, thread uint* keys, uint lane) {
        constexpr uint EACH = EXPERTS / GROUPS;
        uint group_key = 0;
        for (uint group = 0; group < GROUPS; ++group) {
            float judged = 0.0f;
            uint before = EXPERTS;
            for (uint n = 0; n < JUDGED && n < EACH; ++n) {
                uint best = 0;
                uint index = EXPERTS;
                for (uint i = 0; i < COUNT; ++i) {
                    const uint expert = i * 32 + lane;
                    if (expert / EACH == group && expert < EXPERTS && expert != before && keys[i] > best) {
                        best = keys[i];
                        index = expert;
                    }
                }
                const uint top = simd_max(best);
                const uint first = simd_min(best == top ? index : EXPERTS);
                float score = 0.0f;
                for (uint i = 0; i < COUNT; ++i) {
                    if (i * 32 + lane == first) {
                        score = scores[i];
                    }
                }
                judged += simd_sum(score);
                before = first;
            }
            group_key = lane == group ? order_key(judged) : group_key;
        }
        uint kept = 0;
        for (uint n = 0; n < CHOSEN_GROUPS; ++n) {
            const uint top = simd_max(group_key);
            const uint group = simd_min(group_key == top ? lane : 31u);
            kept |= 1u << group;
            group_key = lane == group ? 0 : group_key;
        }
        #pragma clang loop unroll(full)
        for (uint i = 0; i < COUNT; ++i) {
            if ((kept >> (i * 32 + lane) / EACH & 1u) == 0) {
                keys[i] = 0;
            }
        }
    }

    // The best expert that is left; it is taken out.
    static inline uint take_best(thread uint* keys, uint lane) {
        uint best = keys[0];
        #pragma clang loop unroll(full)
        for (uint i = 1; i < COUNT; ++i) {
            best = max(best, keys[i]);
        }
        best = simd_max(best);
        uint expert = EXPERTS - 1;
        #pragma clang loop unroll(full)
        for (uint i = COUNT; i > 0; --i) {
            if (keys[i - 1] == best) {
                expert = min((i - 1) * 32 + lane, expert);
            }
        }
        expert = simd_min(expert);
        #pragma clang loop unroll(full)
        for (uint i = 0; i < COUNT; ++i) {
            if (i * 32 + lane == expert) {
                keys[i] = 0;
            }
        }
        return expert;
    }

    // The expert in this place of a row's choice.
    static inline uint at(device const float* logits, device const float* vector, uint place, uint lane) {
        uint left[COUNT];
        choice_keys(logits, vector, left, lane);
        uint expert = take_best(left, lane);
        for (uint n = 0; n < place; ++n) {
            expert = take_best(left, lane);
        }
        return expert;
    }

    // A row's experts, the best first, and their weights. With SHARED an expert that every row takes has a weight after them:
    // 1, or with 2 a sigmoid of the logit after those of the experts.
    template <uint SHARED>
    static inline void store(device const float* logits, device const float* vector, device uint* experts,
                             device float* weights, float added, float scale, uint lane) {
        uint left[COUNT];
        choice_keys(logits, vector, left, lane);
        uint own = 0;
        for (uint n = 0; n < CHOSEN; ++n) {
            const uint expert = take_best(left, lane);
            own = lane == n ? expert : own;
        }
        const bool mine = lane < CHOSEN;
        float weight = logits[own];
        if (SCORES == 2) {
            weight = sigmoid(weight);
        } else if (SCORES == 1) {
            weight = precise::exp(weight - simd_max(weight));
        } else {
            const float2 all = softmax_of_all(logits, lane);
            weight = precise::exp(weight - all.x) / all.y;
        }
        // A softmax of the chosen is divided by their sum, other scores where something is to be added to it.
        const float sum = simd_sum(mine ? weight : 0.0f);
        if (SCORES == 1) {
            weight /= sum;
        } else if (added >= 0.0f) {
            weight /= sum + added;
        }
        if (VECTOR == 2) {
            weight *= vector[own];
        }
        if (mine) {
            experts[lane] = own;
            weights[lane] = weight * scale;
        }
        if (SHARED != 0 && lane == 0) {
            weights[CHOSEN] = SHARED == 2 ? sigmoid(logits[EXPERTS]) : 1.0f;
        }
    }
};

// One row a simdgroup.
template <typename R, uint LOGITS, uint CHOSEN, uint SHARED>
inline void route_row(device const float* logits, device const float* vector, device uint* experts, device float* weights,
                      float added, float scale, uint row, uint lane) {
    constexpr uint WEIGHTS = SHARED != 0 ? CHOSEN + 1 : CHOSEN;
    R::template store<SHARED>(logits + row * LOGITS, vector, experts + row * CHOSEN, weights + row * WEIGHTS, added, scale,
                              lane);
}

// How many lanes before this one have the same value, and how many have it.
inline uint2 equal_lanes(uint value, uint lane) {
    uint2 equal = uint2(0);
    for (uint other = 0; other < 32; ++other) {
        if (simd_shuffle(value, ushort(other)) == value) {
            equal += uint2(other < lane ? 1u : 0u, 1u);
        }
    }
    return equal;
}

// Pairs of a row and an expert in order of the experts, and of the rows for each, cut into tiles of up to TILE; then the threadgroups of
// two grids over the tiles. A counting sort by one threadgroup of SIMDGROUPS, each of which has a run of the pairs:
// `shared`, [SIMDGROUPS][EXPERTS], is how many pairs of an expert a run has, then where the next of them goes.
template <uint EXPERTS, uint CHOSEN, uint TILE, uint COLUMNS_UP, uint COLUMNS_DOWN, uint SIMDGROUPS>
inline void sort_pairs(device const uint* experts, device uint* pairs, device uint* tiles, device uint* threadgroups,
                         threadgroup uint* shared, uint rows, uint simdgroup, uint lane) {
    constexpr uint EACH = (EXPERTS + 31) / 32; // experts of a lane
    const uint count = rows * CHOSEN;
    const uint run = (count + SIMDGROUPS - 1) / SIMDGROUPS;
    const uint begin = min(simdgroup * run, count);
    const uint end = min(begin + run, count);
    threadgroup uint* own = shared + simdgroup * EXPERTS;
    for (uint expert = lane; expert < EXPERTS; expert += 32) {
        own[expert] = 0;
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    for (uint base = begin; base < end; base += 32) {
        const uint expert = base + lane < end ? experts[base + lane] : EXPERTS;
        const uint2 equal = equal_lanes(expert, lane);
        if (expert < EXPERTS && equal.x == 0) {
            own[expert] += equal.y;
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (simdgroup == 0) {
        const uint from = min(lane * EACH, EXPERTS);
        const uint to = min(from + EACH, EXPERTS);
        uint first = 0;
        uint tile = 0;
        for (uint expert = from; expert < to; ++expert) {
            uint found = 0;
            for (uint i = 0; i < SIMDGROUPS; ++i) {
                found += shared[i * EXPERTS + expert];
            }
            first += found;
            tile += (found + TILE - 1) / TILE;
        }
        const uint all = simd_sum(tile);
        first = simd_prefix_exclusive_sum(first);
        tile = simd_prefix_exclusive_sum(tile);
        for (uint expert = from; expert < to; ++expert) {
            uint next = first;
            for (uint i = 0; i < SIMDGROUPS; ++i) {
                const uint found = shared[i * EXPERTS + expert];
                shared[i * EXPERTS + expert] = next;
                next += found;
            }
            for (; first < next; first = min(first + TILE, next)) {
                tiles[3 * tile] = expert;
                tiles[3 * tile + 1] = first;
                tiles[3 * tile + 2] = min(next - first, TILE);
                ++tile;
            }
        }
        if (lane == 0) {
            threadgroups[0] = COLUMNS_UP;
            threadgroups[1] = all;
            threadgroups[2] = 1;
            threadgroups[3] = COLUMNS_DOWN;
            threadgroups[4] = all;
            threadgroups[5] = 1;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint base = begin; base < end; base += 32) {
        const uint expert = base + lane < end ? experts[base + lane] : EXPERTS;
        const uint2 equal = equal_lanes(expert, lane);
        if (expert < EXPERTS) {
            pairs[own[expert] + equal.x] = base + lane;
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        if (expert < EXPERTS && equal.x == 0) {
            own[expert] += equal.y;
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
}
