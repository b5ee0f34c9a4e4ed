#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
half h = 1.0h; half g = clamp(h, 0.0h, 2.0h); o[i] = float(g) + clamp(a[i], 0.0f, 1.0f) + float(min(int(i), 3)) + max(n, 1u);
}
