// expect: 5: a threadgroup variable can be declared in a kernel only
#include <metal_stdlib>
using namespace metal;
float f(float x) {
    threadgroup float s[4];
    s[0] = x;
    return s[0];
}
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    o[i] = f(a[i]);
}
