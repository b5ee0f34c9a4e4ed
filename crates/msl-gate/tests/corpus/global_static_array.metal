// expect: 4: must be in the constant address space
#include <metal_stdlib>
using namespace metal;
static const float T[2] = {1.0f, 2.0f};
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    o[i] = T[0];
}
