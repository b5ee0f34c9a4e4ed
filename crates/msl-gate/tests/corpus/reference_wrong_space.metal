// expect: 7: no matching function
#include <metal_stdlib>
using namespace metal;
void f(thread float& x) { x = 0.0f; }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    f(o[i]);
}
