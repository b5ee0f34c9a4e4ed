// expect: 5: must have an explicit address space
#include <metal_stdlib>
using namespace metal;
struct F { typedef half B; };
template <typename F> float f(typename F::B* p) { return p[0]; }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    o[i] = 0.0f;
}
