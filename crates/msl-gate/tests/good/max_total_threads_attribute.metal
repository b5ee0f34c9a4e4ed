#include <metal_stdlib>
using namespace metal;
[[max_total_threads_per_threadgroup(256)]]
kernel void k(device float* o [[buffer(0)]], uint i [[thread_position_in_grid]]) { o[i] = 0; }