// expect: 7: pointers to functions are not allowed
#include <metal_stdlib>
using namespace metal;
float f(float x) { return x; }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    float (*g)(float) = f;
    o[i] = g(1.0f);
}
