#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
if (n > 3) { threadgroup float s[32]; s[lane] = 1; threadgroup_barrier(mem_flags::mem_threadgroup); o[i] = s[31 - lane]; }
}
