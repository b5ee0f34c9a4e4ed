#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
float x = simd_shuffle_xor(a[i], 1); x += simd_shuffle_down(x, 4) + simd_broadcast(x, 0) + simd_shuffle(x, ushort(lane ^ 1)); o[i] = simd_is_first() ? x : simd_prefix_exclusive_sum(x);
}
