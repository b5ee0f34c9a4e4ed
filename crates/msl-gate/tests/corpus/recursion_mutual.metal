// expect: 8: g calls itself
#include <metal_stdlib>
using namespace metal;
float g(float x);
float f(float x) {
    return x > 1.0f ? g(x - 1.0f) : x;
}
float g(float x) { return x > 2.0f ? 1.0f + g(x) : x; }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    o[i] = f(a[i]);
}
