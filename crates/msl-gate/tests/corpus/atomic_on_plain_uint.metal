// expect: 5: no matching function
#include <metal_stdlib>
using namespace metal;
kernel void k(device uint* o [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    atomic_fetch_add_explicit(o + i, 1u, memory_order_relaxed);
}
