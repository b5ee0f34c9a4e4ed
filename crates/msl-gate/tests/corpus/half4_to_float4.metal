// expect: 7: with an lvalue of type 'thread half4'
#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    half4 h = half4(1.0h);
    float4 f = h;
    o[i] = f.x;
}
