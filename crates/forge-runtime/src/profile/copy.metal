// Copies a buffer, to see what bandwidth the memory has.
#include <metal_stdlib>
using namespace metal;

[[max_total_threads_per_threadgroup(256)]]
kernel void copy(
    device const float4* from [[buffer(0)]], // [elements] float4
    device float4* to [[buffer(1)]],         // [elements] float4
    uint index [[thread_position_in_grid]])
{
    to[index] = from[index];
}
