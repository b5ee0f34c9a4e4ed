// expect: 4: 32784 bytes of threadgroup memory
#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup float s[8192];
    threadgroup float t[4];
    s[lane] = 0.0f;
    t[0] = 0.0f;
    o[i] = s[0] + t[0];
}
