#include <metal_stdlib>
using namespace metal;
template <typename T> T twice(T x) { return x + x; }
template <typename T> float ld(device const T* p, uint i) { return float(p[i]); }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
o[i] = twice(ld(a, i)) + float(twice(half(1)));
}
