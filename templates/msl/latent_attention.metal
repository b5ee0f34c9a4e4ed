// Attention over a cache of latents, [position][LATENT + ROPE]: all of a position is one key of all heads, and its latent
// their value. So queries of several heads, and of several rows, are the rows of one matrix, whose threadgroup loads each
// position once, KEYS at a time: scores = Q K^T, softmax, sums += P V, in 8x8 matrices of operand type O (half or float)
// with float sums. Simdgroups share the columns of both products. Scores are in powers of two.

// A thread's share of KEYS positions, four elements at a time, of THREADS; what is beyond the end stays as it is.
template <uint WIDTH, uint KEYS, uint THREADS, typename T>
inline void load_positions(device const T* latents, uint first, uint end, uint thread_index,
                           thread CacheElements<4>* arriving) {
    #pragma clang loop unroll(full)
    for (uint n = 0; n < (KEYS * WIDTH / 4 + THREADS - 1) / THREADS; ++n) {
        const uint i = n * THREADS + thread_index;
        const uint position = first + i / (WIDTH / 4);
        if ((KEYS * WIDTH / 4 % THREADS == 0 || i < KEYS * WIDTH / 4) && position < end) {
            load_elements(cache_head<WIDTH>(latents, position, 0), i % (WIDTH / 4) * 4, arriving[n]);
        }
    }
}

// SHARED_HEADS heads from `first_head` on, of TOGETHER rows, `rows` of which there are, from `position` on, over positions
// `begin` to `end` of the sequence that begins at position `start_of_slot` of the cache. WHOLE: y is [rows][HEADS][LATENT] and
// gets the result; else there is one row, and y gets sums [parts][HEADS][LATENT] and then the highest score and the weight of
// each, [parts][HEADS][2].
template <uint HEADS, uint LATENT, uint ROPE, uint SHARED_HEADS, uint TOGETHER, uint SIMDGROUPS, uint KEYS, bool WHOLE,
          typename O, typename T>
inline void attend_latents(device const float* q, device const T* latents, device float* y, threadgroup float* shared,
                           uint start_of_slot, uint position, uint rows, float scale, uint first_head, uint begin,
                           uint end, uint part, uint parts, uint simdgroup, uint lane) {
    constexpr uint WIDTH = LATENT + ROPE;
    // Eight more, so that rows of a matrix begin in different banks.
    constexpr uint STRIDE = WIDTH + 8;
    constexpr uint PAIRS = SHARED_HEADS * TOGETHER;
    constexpr uint BLOCKS = (PAIRS + 7) / 8;
    constexpr uint LINES = BLOCKS * 8;
    constexpr uint COLUMNS = WIDTH / 8;
    constexpr uint VALUES = LATENT / 8;
    constexpr uint OWN = (COLUMNS + SIMDGROUPS - 1) / SIMDGROUPS;
    constexpr uint OWN_VALUES = (VALUES + SIMDGROUPS - 1) / SIMDGROUPS;
    constexpr uint OWN_LINES = (LINES + SIMDGROUPS - 1) / SIMDGROUPS;
    constexpr uint LOADS = (KEYS * WIDTH / 4 + SIMDGROUPS * 32 - 1) / (SIMDGROUPS * 32);
    constexpr float LOG2_E = 1.44269504f;
    threadgroup float* scores = shared;                                // [SIMDGROUPS][LINES][KEYS]
    threadgroup float* corrections = scores + SIMDGROUPS * LINES * KEYS; // [LINES]
    threadgroup float* ends = corrections + LINES;                     // [LINES][2]
    threadgroup float* square = ends + 2 * LINES + simdgroup * 64;     // [8][8]
    threadgroup O* tile = (threadgroup O*)(ends + 2 * LINES + SIMDGROUPS * 64); // [KEYS][STRIDE]
    threadgroup O* weights = tile + KEYS * STRIDE;                     // [LINES][KEYS]
    latents += ulong(start_of_slot) * cache_stride(WIDTH);

    simdgroup_matrix<O, 8, 8> queries[OWN * BLOCKS];
    for (uint i = 0; i < OWN; ++i) {
        const uint column = simdgroup + i * SIMDGROUPS;
        for (uint b = 0; b < BLOCKS && column < COLUMNS; ++b) {
            threadgroup O* own = (threadgroup O*)square;
            for (uint e = lane; e < 64; e += 32) {
                const uint pair = b * 8 + e / 8;
                const uint row = pair / SHARED_HEADS;
                const uint head = first_head + pair % SHARED_HEADS;
                const bool inside = row < rows && head < HEADS && pair < PAIRS;
                own[e] = inside ? O(q[(row * HEADS + head) * WIDTH + column * 8 + e % 8]) : O(0.0f);
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
            simdgroup_load(queries[i * BLOCKS + b], own, 8);
            simdgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
    simdgroup_matrix<float, 8, 8> sums[OWN_VALUES * BLOCKS];
    for (uint i = 0; i < OWN_VALUES * BLOCKS; ++i) {
        sums[i] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
    // A simdgroup has the softmax of every SIMDGROUPS-th line.
    float highest[OWN_LINES];
    float total[OWN_LINES];
    for (uint n = 0; n < OWN_LINES; ++n) {
        highest[n] = NO_SCORE;
        total[n] = 0.0f;
    }
    // The next positions are on their way while these are worked on.
    CacheElements<4> arriving[LOADS];
    const uint thread_index = simdgroup * 32 + lane;
    load_positions<WIDTH, KEYS, SIMDGROUPS * 32>(latents, begin, end, thread_index, arriving);
    for (uint start = begin; start < end; start += KEYS) {
        #pragma clang loop unroll(full)
        for (uint n = 0; n < LOADS; ++n) {
            const uint i = n * (SIMDGROUPS * 32) + thread_index;
            if (KEYS * WIDTH / 4 % (SIMDGROUPS * 32) == 0 || i < KEYS * WIDTH / 4) {
                threadgroup O* target = tile + i / (WIDTH / 4) * STRIDE + i % (WIDTH / 4) * 4;
                float value[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                if (start + i / (WIDTH / 4) < end) {
                    decode_elements(arriving[n], value);
                }
                #pragma clang loop unroll(full)
                for (uint e = 0; e < 4; ++e) {
                    target[e] = O(value[e]);
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (start + KEYS < end) {
            load_positions<WIDTH, KEYS, SIMDGROUPS * 32>(latents, start + KEYS, end, thread_index, arriving);
        }
        for (uint j = 0; j < KEYS / 8; ++j) {
            simdgroup_matrix<float, 8, 8> score[BLOCKS];
            for (uint b = 0; b < BLOCKS; ++b) {
                score[b] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
            }
            for (uint i = 0; i < OWN; ++i) {
                const uint column = simdgroup + i * SIMDGROUPS;
                if (column < COLUMNS) {
                    simdgroup_matrix<O, 8, 8> key;
                    simdgroup_load(key, tile + j * 8 * STRIDE + column * 8, STRIDE, ulong2(0, 0), true);
                    for (uint b = 0; b < BLOCKS; ++b) {
                        simdgroup_multiply_accumulate(score[b], queries[i * BLOCKS + b], key, score[b]);
                    }
                }
            }
            for (uint b = 0; b < BLOCKS; ++b) {
                simdgroup_store(score[b], scores + (simdgroup * LINES + b * 8) * KEYS + j * 8, KEYS);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint n = 0; n < OWN_LINES; ++n) {
            const uint line = simdgroup + n * SIMDGROUPS;
            if (line < LINES) {
                const uint key = start + lane;
                float score = NO_SCORE;
                if (lane < KEYS && key < end && key <= position + line / SHARED_HEADS) {
                    score = 0.0f;
                    for (uint s = 0; s < SIMDGROUPS; ++s) {
                        score += scores[(s * LINES + line) * KEYS + lane];
                    }
                    score *= scale * LOG2_E;
                }
                const float top = max(highest[n], simd_max(score));
                const float correction = exp2(highest[n] - top);
                const float weight = score > 0.5f * NO_SCORE ? exp2(score - top) : 0.0f;
                total[n] = total[n] * correction + simd_sum(weight);
                highest[n] = top;
                if (lane < KEYS) {
                    weights[line * KEYS + lane] = O(weight);
                }
                if (lane == 0) {
                    corrections[line] = correction;
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        // Once the highest scores are found they stay, and sums with them.
        const float least = simd_min(lane < LINES ? corrections[lane] : 1.0f);
        for (uint b = 0; b < BLOCKS && least < 1.0f; ++b) {
            for (uint e = lane; e < 64; e += 32) {
                square[e] = e / 8 == e % 8 ? corrections[b * 8 + e / 8] : 0.0f;
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
            simdgroup_matrix<float, 8, 8> diagonal;
            simdgroup_load(diagonal, square, 8);
            simdgroup_barrier(mem_flags::mem_threadgroup);
            for (uint i = 0; i < OWN_VALUES; ++i) {
                simdgroup_matrix<float, 8, 8> scaled;
                simdgroup_multiply(scaled, diagonal, sums[i * BLOCKS + b]);
                sums[i * BLOCKS + b] = scaled;
            }
        }
        for (uint j = 0; j < KEYS / 8; ++j) {
            simdgroup_matrix<O, 8, 8> weight[BLOCKS];
            for (uint b = 0; b < BLOCKS; ++b) {
                simdgroup_load(weight[b], weights + b * 8 * KEYS + j * 8, KEYS);
            }
            for (uint i = 0; i < OWN_VALUES; ++i) {
                const uint column = simdgroup + i * SIMDGROUPS;
                if (column < VALUES) {
                    simdgroup_matrix<O, 8, 8> value;
                    simdgroup_load(value, tile + j * 8 * STRIDE + column * 8, STRIDE);
                    for (uint b = 0; b < BLOCKS; ++b) {
                        simdgroup_multiply_accumulate(
                            sums[i * BLOCKS + b], weight[b], value, sums[i * BLOCKS + b]);
                    }
                }
            }
        }
        // All are done with the positions: the next ones take their place.
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    for (uint n = 0; n < OWN_LINES; ++n) {
        const uint line = simdgroup + n * SIMDGROUPS;
        if (line < LINES && lane == 0) {
            ends[2 * line] = highest[n];
            ends[2 * line + 1] = total[n];
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = 0; i < OWN_VALUES; ++i) {
        const uint column = simdgroup + i * SIMDGROUPS;
        for (uint b = 0; b < BLOCKS && column < VALUES; ++b) {
            simdgroup_store(sums[i * BLOCKS + b], square, 8);
            simdgroup_barrier(mem_flags::mem_threadgroup);
            for (uint e = lane; e < 64; e += 32) {
                const uint line = b * 8 + e / 8;
                const uint row = line / SHARED_HEADS;
                const uint head = first_head + line % SHARED_HEADS;
                if (row < rows && head < HEADS && line < PAIRS) {
                    const uint at = ((WHOLE ? row : part) * HEADS + head) * LATENT + column * 8 + e % 8;
                    y[at] = WHOLE ? square[e] / ends[2 * line + 1] : square[e];
                }
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
    if (!WHOLE && simdgroup == 0 && lane < PAIRS && first_head + lane < HEADS) {
        device float* scale_of = y + parts * HEADS * LATENT + (part * HEADS + first_head + lane) * 2;
        scale_of[0] = ends[2 * lane];
        scale_of[1] = ends[2 * lane + 1];
    }
}

// A row over all that it sees.
template <uint HEADS, uint LATENT, uint ROPE, uint SHARED_HEADS, uint TOGETHER, uint SIMDGROUPS, uint KEYS, typename O,
          typename T>
inline void latents_whole(device const float* q, device const T* latents, device float* y, threadgroup float* shared,
                          uint start_of_slot, uint position, float scale, uint group, uint, uint row, uint simdgroup,
                          uint lane) {
    attend_latents<HEADS, LATENT, ROPE, SHARED_HEADS, TOGETHER, SIMDGROUPS, KEYS, true, O>(
        q + row * (HEADS * (LATENT + ROPE)), latents, y + row * (HEADS * LATENT), shared, start_of_slot, position, 1,
        scale, group * SHARED_HEADS, 0, position + 1, 0, 1, simdgroup, lane);
}

// A row over a part of what it sees; y has room for MAX_PARTS parts of each row.
template <uint HEADS, uint LATENT, uint ROPE, uint SHARED_HEADS, uint TOGETHER, uint SIMDGROUPS, uint KEYS, uint UNSPLIT,
          uint PART_POSITIONS, uint MAX_PARTS, typename O, typename T>
inline void latents_part(device const float* q, device const T* latents, device float* y, threadgroup float* shared,
                         uint start_of_slot, uint position, float scale, uint group, uint part, uint row,
                         uint simdgroup, uint lane) {
    const uint parts = context_parts<0, UNSPLIT, PART_POSITIONS, MAX_PARTS>(position);
    if (part < parts) {
        const uint length = position / parts + 1;
        const uint begin = min(part * length, position + 1);
        attend_latents<HEADS, LATENT, ROPE, SHARED_HEADS, TOGETHER, SIMDGROUPS, KEYS, false, O>(
            q + row * (HEADS * (LATENT + ROPE)), latents, y + row * (MAX_PARTS * HEADS * (LATENT + 2)), shared,
            start_of_slot, position, 1, scale, group * SHARED_HEADS, begin, min(begin + length, position + 1), part,
            parts, simdgroup, lane);
    }
}

// Rows of a tile, TOGETHER of them from row block * TOGETHER on.
template <uint HEADS, uint LATENT, uint ROPE, uint SHARED_HEADS, uint TOGETHER, uint SIMDGROUPS, uint KEYS, typename O,
          typename T>
inline void latents_tile(device const float* q, device const T* latents, device float* y, threadgroup float* shared,
                         uint start_of_slot, uint position, uint rows, float scale, uint block, uint group,
                         uint simdgroup, uint lane) {
    const uint first = block * TOGETHER;
    const uint own = min(TOGETHER, rows - first);
    attend_latents<HEADS, LATENT, ROPE, SHARED_HEADS, TOGETHER, SIMDGROUPS, KEYS, true, O>(
        q + first * (HEADS * (LATENT + ROPE)), latents, y + first * (HEADS * LATENT), shared, start_of_slot,
        position + first, own, scale, group * SHARED_HEADS, 0, position + first + own, 0, 1, simdgroup, lane);
}
