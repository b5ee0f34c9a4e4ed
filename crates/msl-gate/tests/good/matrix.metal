#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
threadgroup half s[64]; s[lane] = 0; s[lane + 32] = 0; threadgroup_barrier(mem_flags::mem_threadgroup); simdgroup_half8x8 m; simdgroup_float8x8 c(0.0f), d = make_filled_simdgroup_matrix<float, 8, 8>(0.0f); simdgroup_load(m, s, 8); simdgroup_multiply_accumulate(c, m, m, c); simdgroup_store(c, o, 8); o[i] += d.thread_elements()[0];
}
