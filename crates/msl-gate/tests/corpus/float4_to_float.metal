// expect: 7: cannot initialize a variable of type 'thread float' with an lvalue of type 'thread float4'
#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    float4 f = float4(1.0f);
    float g = f;
    o[i] = g;
}
