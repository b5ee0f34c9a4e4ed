// Norm of whole rows that subtracts their mean. Threadgroups of 256 threads.

// What a row's elements are scaled by after its mean is taken off: mean, and 1 / sqrt(variance + eps). `shared` holds 16
// floats.
template <uint WIDTH>
inline float2 row_moments(device const float* source, threadgroup float* shared, float eps, uint thread_index,
                          uint simdgroup, uint lane) {
    float sum = 0.0f;
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        const float4 value = *(device const float4*)(source + i);
        sum += value.x + value.y + value.z + value.w;
    }
    const float mean = threadgroup_sum(sum, shared, simdgroup, lane) / float(WIDTH);
    // Squares of what is left of the mean: their sum loses no digits where the mean is large.
    float square = 0.0f;
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        const float4 value = *(device const float4*)(source + i) - mean;
        square += dot(value, value);
    }
    const float variance = threadgroup_sum(square, shared + 8, simdgroup, lane) / float(WIDTH);
    return float2(mean, precise::rsqrt(variance + eps));
}

// y = (x - mean) / sqrt(variance + eps) * gamma, one row a threadgroup.
template <uint WIDTH>
inline void layer_norm_row(device const float* x, device const float* gamma, device float* y, threadgroup float* shared,
                           float eps, uint row, uint thread_index, uint simdgroup, uint lane) {
    device const float* source = x + row * WIDTH;
    const float2 moments = row_moments<WIDTH>(source, shared, eps, thread_index, simdgroup, lane);
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        const float4 value = (*(device const float4*)(source + i) - moments.x) * moments.y;
        *(device float4*)(y + row * WIDTH + i) = value * *(device const float4*)(gamma + i);
    }
}

// The same plus beta.
template <uint WIDTH>
inline void layer_norm_biased_row(device const float* x, device const float* gamma, device const float* beta,
                                  device float* y, threadgroup float* shared, float eps, uint row, uint thread_index,
                                  uint simdgroup, uint lane) {
    device const float* source = x + row * WIDTH;
    const float2 moments = row_moments<WIDTH>(source, shared, eps, thread_index, simdgroup, lane);
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        const float4 value = (*(device const float4*)(source + i) - moments.x) * moments.y;
        const float4 scaled = value * *(device const float4*)(gamma + i);
        *(device float4*)(y + row * WIDTH + i) = scaled + *(device const float4*)(beta + i);
    }
}
