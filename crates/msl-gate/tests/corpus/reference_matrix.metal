// expect: 4: reference to simdgroup_matrix<float,8,8> must have an explicit address space
#include <metal_stdlib>
using namespace metal;
void f(simdgroup_matrix<float, 8, 8>& m) { m = simdgroup_float8x8(0.0f); }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    simdgroup_float8x8 m;
    f(m);
    o[i] = 0.0f;
}
