// expect: 8: no matching function
#include <metal_stdlib>
using namespace metal;
float f(device const float* p) { return p[0]; }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    float x[2] = {1.0f, 2.0f};
    o[i] = f(x);
}
