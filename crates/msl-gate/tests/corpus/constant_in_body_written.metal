// expect: 7: read-only variable
#include <metal_stdlib>
using namespace metal;
constant float T[2] = {1.0f, 2.0f};
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    T[0] = 2.0f;
    o[i] = T[0];
}
