// Powers of two that take rows into the range of halves.

// Times scales[row] the largest element of a row of WIDTH elements is at least 2^14 and below 2^15, so that the row can be an
// operand of half matrices whatever its size; no digit is lost by that, nor when products are divided by it. One row a
// threadgroup of 256 threads, of EACH that a row of the step has.
template <uint WIDTH, uint EACH>
inline void row_scale(device const float* input, device float* scales, threadgroup uint* shared, uint2 group,
                      uint thread_index, uint simdgroup, uint lane) {
    const uint row = group.y * EACH + group.x;
    device const float* source = input + ulong(row) * WIDTH;
    // Of numbers without their signs the larger has the larger bits, and infinity and no number the largest.
    uint largest = 0;
    for (uint i = thread_index * 4; i < WIDTH; i += 1024) {
        const uint4 bits = as_type<uint4>(*(device const float4*)(source + i)) & 0x7FFFFFFFu;
        largest = max(max(largest, max(bits.x, bits.y)), max(bits.z, bits.w));
    }
    largest = simd_max(largest);
    if (lane == 0) {
        shared[simdgroup] = largest;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (thread_index == 0) {
        for (uint i = 0; i < 8; ++i) {
            largest = max(largest, shared[i]);
        }
        // Exponents whose scale, and what undoes it, are normal numbers.
        const uint exponent = clamp(largest >> 23, 15u, 253u);
        scales[row] = as_type<float>((268u - exponent) << 23);
    }
}
