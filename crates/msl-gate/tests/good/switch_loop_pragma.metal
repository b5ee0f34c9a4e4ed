#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
float s = 0;
#pragma unroll
for (uint k = 0; k < 4; ++k) { switch (k & 1) { case 0: s += a[k]; break; default: s -= 1; } } o[i] = s;
}
