// expect: 7: no matching function
#include <metal_stdlib>
using namespace metal;
float f(threadgroup const float* p) { return p[0]; }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    o[i] = f(a);
}
