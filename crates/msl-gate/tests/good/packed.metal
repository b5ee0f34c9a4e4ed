#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
device const packed_float3* p = (device const packed_float3*)a; float3 v = p[i]; o[i] = v.x; device const packed_half4* q = (device const packed_half4*)a; float4 w = float4(half4(q[i])); o[i] += w.x;
}
