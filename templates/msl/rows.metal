// Prologues and epilogues of the matrix-vector kernels. A simdgroup holds NR results (of each token), the same in every
// lane; result r belongs to output row `first + r` and is written by lane r.

// 1 / rms of the input, from the partial sums of squares that its producer left.
template <uint PARTIALS, uint WIDTH>
inline float rms_scale(device const float* sums, float eps, uint lane) {
    float sum = 0.0f;
    for (uint i = lane; i < PARTIALS; i += 32) {
        sum += sums[i];
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

template <uint NR>
inline void add_bias(thread float* acc, device const float* bias, uint first, uint end) {
    #pragma clang loop unroll(full)
    for (uint r = 0; r < NR; ++r) {
        if (first + r < end) {
            acc[r] += bias[first + r];
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

// Partial sums of squares, COUNT in all, each of OWNERS times LANES_EACH rows that follow one another; the first threadgroup
// clears the slots that this kernel does not fill. Of KS simdgroups the first has rows, CHUNKS times LANES_EACH of them, one a
// lane. Whatever CHUNKS is, a partial sum adds up the same terms in the same order.
template <uint SIMDGROUPS, uint KS, uint CHUNKS, uint LANES_EACH, uint OWNERS, uint COUNT, uint PARTIALS>
inline void store_partial_sums(device float* sums, threadgroup float* shared, float square, uint group, uint simdgroup,
                               uint lane) {
    #pragma clang loop unroll(full)
    for (uint chunk = 0; chunk < CHUNKS; ++chunk) {
        const float sum = simd_sum(CHUNKS == 1 || lane / LANES_EACH == chunk ? square : 0.0f);
        if (lane == 0 && simdgroup % KS == 0) {
            shared[simdgroup / KS * CHUNKS + chunk] = sum;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    constexpr uint HERE = SIMDGROUPS / KS * CHUNKS / OWNERS;
    const uint at = group * HERE + lane;
    if (simdgroup == 0 && lane < HERE && at < COUNT) {
        float total = 0.0f;
        for (uint i = 0; i < OWNERS; ++i) {
            total += shared[lane * OWNERS + i];
        }
        sums[at] = total;
    }
    if (group == 0) {
        for (uint i = COUNT + simdgroup * 32 + lane; i < PARTIALS; i += SIMDGROUPS * 32) {
            sums[i] = 0.0f;
        }
    }
}

// The same of one row: one partial sum per threadgroup. Written apart, since what comes after a product decides how its loads are
// scheduled: through the function above a Q8_0 product takes 1.1 times as long on an H100.
template <uint SIMDGROUPS, uint GROUPS, uint PARTIALS>
inline void store_partial_sum(device float* sums, threadgroup float* shared, float square, uint group, uint simdgroup,
                              uint lane) {
    const float sum = simd_sum(square);
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
