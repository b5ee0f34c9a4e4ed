// expect: 8: implicit conversions between vector types
#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    half4 h = half4(1.0h);
    float4 f = float4(1.0f);
    o[i] = (f * h).x;
}
