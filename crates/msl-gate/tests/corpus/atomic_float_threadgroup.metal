// expect: 7: atomic_float has only add and sub, in device memory
#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup atomic_float s;
    atomic_fetch_add_explicit(&s, 1.0f, memory_order_relaxed);
    o[i] = 0.0f;
}
