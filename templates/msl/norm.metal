// RMS norm of whole rows, and the norm between a projection and the residual stream. Threadgroups of 256 threads.

// Sum over a threadgroup of 8 simdgroups; every thread gets it.
inline float threadgroup_sum(float value, threadgroup float* shared, uint simdgroup, uint lane) {
    const float sum = simd_sum(value);
    if (lane == 0) {
        shared[simdgroup] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float total = 0.0f;
    for (uint i = 0; i < 8; ++i) {
        total += shared[i];
    }
    return total;
}

// y = x / rms(x) * gamma, one row a threadgroup.
template <uint WIDTH>
inline void rms_norm_row(device const float* x, device const float* gamma, device float* y, threadgroup float* shared,
                         float eps, uint row, uint thread_index, uint simdgroup, uint lane) {
    device const float* source = x + row * WIDTH;
    float square = 0.0f;
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        const float4 value = *(device const float4*)(source + i);
        square += dot(value, value);
    }
    const float scale = precise::rsqrt(threadgroup_sum(square, shared, simdgroup, lane) / float(WIDTH) + eps);
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        *(device float4*)(y + row * WIDTH + i) =
            *(device const float4*)(source + i) * scale * *(device const float4*)(gamma + i);
    }
}

// x = (x + factor * y / rms(y) * gamma) * layer_scale, one row a threadgroup.
template <uint WIDTH>
inline void post_norm_row(device const float* y, device const float* gamma, device float* x, threadgroup float* shared,
                          float eps, float factor, float layer_scale, uint row, uint thread_index, uint simdgroup,
                          uint lane) {
    device const float* source = y + row * WIDTH;
    float square = 0.0f;
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        const float4 value = *(device const float4*)(source + i);
        square += dot(value, value);
    }
    const float scale = factor * precise::rsqrt(threadgroup_sum(square, shared, simdgroup, lane) / float(WIDTH) + eps);
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        device float4* target = (device float4*)(x + row * WIDTH + i);
        const float4 normed = *(device const float4*)(source + i) * scale * *(device const float4*)(gamma + i);
        *target = (*target + normed) * layer_scale;
    }
}

// The same with what the next projection needs; `shared` holds two sums of 8 simdgroups.
template <uint WIDTH, uint PARTIALS>
inline void post_norm_prepared_row(device const float* y, device const float* gamma, device float* x,
                                   device const float* next_gamma, device float* scaled, device float* sums,
                                   threadgroup float* shared, float eps, float factor, float layer_scale, uint row,
                                   uint thread_index, uint simdgroup, uint lane) {
    device const float* source = y + row * WIDTH;
    float square = 0.0f;
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        const float4 value = *(device const float4*)(source + i);
        square += dot(value, value);
    }
    const float scale = factor * precise::rsqrt(threadgroup_sum(square, shared, simdgroup, lane) / float(WIDTH) + eps);
    square = 0.0f;
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        const uint at = row * WIDTH + i;
        const float4 normed = *(device const float4*)(source + i) * scale * *(device const float4*)(gamma + i);
        const float4 value = (*(device const float4*)(x + at) + normed) * layer_scale;
        *(device float4*)(x + at) = value;
        *(device float4*)(scaled + at) = value * *(device const float4*)(next_gamma + i);
        square += dot(value, value);
    }
    store_partial_sum<8, 1, PARTIALS>(sums + row * PARTIALS, shared + 8, square, 0, simdgroup, lane);
}

// The same for the rows of a step, each spread over threadgroups of 1024 elements, with what the next projection needs.
template <uint WIDTH, uint RESULT_PARTIALS, uint PARTIALS>
inline void post_norm_scaled_row(device const float* y, device const float* result_sums, device const float* gamma,
                                 device float* x, device const float* next_gamma, device float* scaled,
                                 device float* sums, threadgroup float* shared, float eps, float factor,
                                 float layer_scale, uint2 group, uint thread_index, uint simdgroup, uint lane) {
    result_sums += group.y * RESULT_PARTIALS;
    const float scale = factor * rms_scale<RESULT_PARTIALS, WIDTH>(result_sums, eps, lane);
    const uint i = group.x * 1024 + thread_index * 4;
    const uint at = group.y * WIDTH + i;
    float square = 0.0f;
    if (i < WIDTH) {
        const float4 normed = *(device const float4*)(y + at) * scale * *(device const float4*)(gamma + i);
        const float4 value = (*(device const float4*)(x + at) + normed) * layer_scale;
        *(device float4*)(x + at) = value;
        *(device float4*)(scaled + at) = value * *(device const float4*)(next_gamma + i);
        square = dot(value, value);
    }
    store_partial_sum<8, (WIDTH + 1023) / 1024, PARTIALS>(
        sums + group.y * PARTIALS, shared, square, group.x, simdgroup, lane);
}
