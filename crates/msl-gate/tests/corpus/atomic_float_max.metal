// expect: 5: atomic_float has only add and sub
#include <metal_stdlib>
using namespace metal;
kernel void k(device atomic_float* o [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    atomic_fetch_max_explicit(o + i, 1.0f, memory_order_relaxed);
}
