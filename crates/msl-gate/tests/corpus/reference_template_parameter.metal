// expect: 4: reference to vec<T,4> must have an explicit address space
#include <metal_stdlib>
using namespace metal;
template <typename T> void f(vec<T, 4>& p) { p = T(0); }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    float4 x;
    o[i] = x.x;
}
