// Prologues and epilogues of the matrix-vector kernels. A simdgroup holds NR results (of each token), the same in every
// lane; result r belongs to output row `first + r` and is written by lane r.

// 1 / rms of the input, from the partial sums of squares that its producer left.
template <uint PARTIALS, uint WIDTH>
inline float rms_scale(device const float* sums, float eps, uint lane) {
    float sum = 0.0f;
    if (PARTIALS % 4 == 0) {
        float4 four = float4(0.0f);
        for (uint i = lane; i < PARTIALS / 4; i += 32) {
            // By itself, so that it is one load.
            const float4 next = ((device const float4*)sums)[i];
            four += next;
        }
        sum = sum4(four);
    } else {
        for (uint i = lane; i < PARTIALS; i += 32) {
            sum += sums[i];
        }
    }
    return precise::rsqrt(simd_sum(sum) / float(WIDTH) + eps);
}

template <uint NR>
inline void scale_rows(thread float* acc, float scale) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        acc[r] *= scale;
    }
}

// Scaled and added to in one, so that no compiler rounds once in a kernel for one row and twice in one for several.
template <uint NR>
inline void add_bias(thread float* acc, float scale, device const float* bias, uint first, uint end) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        if (first + r < end) {
            acc[r] = fma(acc[r], scale, bias[first + r]);
        }
    }
}

template <uint NR>
inline void softcap_rows(thread float* acc, float cap) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        acc[r] = cap * precise::tanh(acc[r] / cap);
    }
}

// Adds up the parts of rows that KS simdgroups share; `shared` holds one part per simdgroup. Part 0 gets the sums.
template <uint NR, uint KS>
inline void combine_parts(thread float* acc, threadgroup float* shared, uint simdgroup, uint lane) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        if (lane == r) {
            shared[simdgroup * NR + r] = acc[r];
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (simdgroup % KS == 0) {
        #pragma clang loop unroll(full)
        for (uint r = 0; r < NR; ++r) {
            acc[r] = shared[simdgroup * NR + r];
            for (uint part = 1; part < KS; ++part) {
                acc[r] += shared[(simdgroup + part) * NR + r];
            }
        }
    }
}

// Returns this lane's share of the sum of squares.
template <uint NR>
inline float store_rows(device float* y, thread const float* acc, uint first, uint end, uint lane) {
    float square = 0.0f;
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        if (lane == r && first + r < end) {
            y[first + r] = acc[r];
            square = acc[r] * acc[r];
        }
    }
    return square;
}

// x += factor * acc, and what the next projection needs: x * gamma and this lane's share of the sum of squares.
template <uint NR>
inline float add_rows(device float* x, device const float* gamma, device float* scaled, thread const float* acc,
                      float factor, uint first, uint end, uint lane) {
    float square = 0.0f;
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        if (lane == r && first + r < end) {
            const float value = x[first + r] + factor * acc[r];
            x[first + r] = value;
            scaled[first + r] = value * gamma[first + r];
            square = value * value;
        }
    }
    return square;
}

// The sum of each LANES lanes that follow one another, in all of them: the same terms in the same order wherever those lie.
template <uint LANES>
inline float sum_of_lanes(float value) {
    #pragma clang loop unroll(full)
    for (uint step = 1; step < LANES; step *= 2) {
        value += simd_shuffle_xor(value, ushort(step));
    }
    return value;
}

// One partial sum of squares for each threadgroup, of GROUPS; the first clears the slots that this kernel does not fill. The first LANES
// lanes of a simdgroup have squares.
template <uint SIMDGROUPS, uint GROUPS, uint PARTIALS, uint LANES = 32>
inline void store_partial_sum(device float* sums, threadgroup float* shared, float square, uint group, uint simdgroup,
                              uint lane) {
    const float sum = LANES == 32 ? simd_sum(square) : sum_of_lanes<LANES>(square);
    if (lane == 0) {
        shared[simdgroup] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (simdgroup == 0 && lane == 0) {
        float total = 0.0f;
        for (uint i = 0; i < SIMDGROUPS; ++i) {
            total += shared[i];
        }
        sums[group] = total;
    }
    if (group == 0) {
        for (uint i = GROUPS + simdgroup * 32 + lane; i < PARTIALS; i += SIMDGROUPS * 32) {
            sums[i] = 0.0f;
        }
    }
}

// Kernels for several tokens. A simdgroup has COUNT results, up to 32; from here on a lane has one of them, so that what becomes of them
// is done once.

// This lane's of the results that all lanes have.
template <uint COUNT>
inline float own_result(thread const float* acc, uint lane) {
    float result = 0.0f;
    #pragma clang loop unroll(full)
    for (uint i = 0; i < COUNT; ++i) {
        result = lane == i ? acc[i] : result;
    }
    return result;
}

// The same where KS simdgroups have a part of each: as combine_parts, part 0 gets the sums.
template <uint COUNT, uint KS>
inline float combine_results(thread const float* acc, threadgroup float* shared, uint simdgroup, uint lane) {
    float result = own_result<COUNT>(acc, lane);
    if (lane < COUNT) {
        shared[simdgroup * COUNT + lane] = result;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (simdgroup % KS == 0 && lane < COUNT) {
        result = shared[simdgroup * COUNT + lane];
        for (uint part = 1; part < KS; ++part) {
            result += shared[(simdgroup + part) * COUNT + lane];
        }
    }
    return result;
}

// 1 / rms of each token's input, by the simdgroups in turn. They are there after the next barrier; zeros of tokens that are not there.
template <uint TOKENS, uint SIMDGROUPS, uint PARTIALS, uint WIDTH>
inline void share_scales(device const float* sums, float eps, threadgroup float* scales, uint tokens, uint simdgroup,
                         uint lane) {
    for (uint n = simdgroup; n < TOKENS; n += SIMDGROUPS) {
        const float scale = n < tokens ? rms_scale<PARTIALS, WIDTH>(sums + n * PARTIALS, eps, lane) : 0.0f;
        if (lane == 0) {
            scales[n] = scale;
        }
    }
}

// Partial sums of squares, COUNT in all for each token: those of the kernel for one token, whose simdgroups have LANES rows each and whose
// threadgroups OWNERS simdgroups with rows of their own. Here a simdgroup has NR rows of each token, and of KS that share rows
// the first has the results. Whatever NR is, a partial sum adds up the same terms in the same order.
template <uint SIMDGROUPS, uint KS, uint TOKENS, uint NR, uint LANES, uint OWNERS, uint COUNT, uint PARTIALS>
inline void store_partial_sums(device float* sums, threadgroup float* shared, float square, uint group, uint tokens,
                               uint simdgroup, uint lane) {
    // Sums of LANES squares in a threadgroup, and partial sums, of each token.
    constexpr uint PIECES = SIMDGROUPS / KS * NR / LANES;
    constexpr uint HERE = PIECES / OWNERS;
    const float sum = sum_of_lanes<LANES>(square);
    if (simdgroup % KS == 0 && lane < TOKENS * NR && lane % LANES == 0) {
        shared[lane / NR * PIECES + (simdgroup / KS * NR + lane % NR) / LANES] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = simdgroup * 32 + lane; i < tokens * HERE; i += SIMDGROUPS * 32) {
        const uint at = group * HERE + i % HERE;
        if (at < COUNT) {
            float total = 0.0f;
            for (uint k = 0; k < OWNERS; ++k) {
                total += shared[i / HERE * PIECES + i % HERE * OWNERS + k];
            }
            sums[i / HERE * PARTIALS + at] = total;
        }
    }
    if (group == 0) {
        for (uint n = 0; n < tokens; ++n) {
            for (uint i = COUNT + simdgroup * 32 + lane; i < PARTIALS; i += SIMDGROUPS * 32) {
                sums[n * PARTIALS + i] = 0.0f;
            }
        }
    }
}

// x += factor * acc.
template <uint NR>
inline void accumulate_rows(device float* x, thread const float* acc, float factor, uint first, uint end, uint lane) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        if (lane == r && first + r < end) {
            x[first + r] += factor * acc[r];
        }
    }
}

// y = activation(gate) * up, NR rows of each.
template <uint NR, typename A>
inline void store_gated_rows(device float* y, thread const float* gate, thread const float* up, uint first, uint end,
                             uint lane) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        if (lane == r && first + r < end) {
            y[first + r] = A::apply(gate[r]) * A::linear(up[r]);
        }
    }
}
