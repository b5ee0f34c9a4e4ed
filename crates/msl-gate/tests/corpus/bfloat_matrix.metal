// expect: 6: simdgroup_bfloat8x8 needs MSL 3.1
#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    simdgroup_bfloat8x8 m;
    o[i] = 0.0f;
}
