#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
float4 v = float4(a[0], a[1], 0.0f, 1.0f); v.xy = v.zw; v *= 2.0f; float3 w = v.xyz; half4 h = half4(v); float4 z = float4(h); o[i] = dot(v, z) + w.x + v[1] + max(v, 0.0f).x;
}
