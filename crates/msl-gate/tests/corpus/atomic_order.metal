// expect: 5: memory_order_acq_rel needs MSL 3.2
#include <metal_stdlib>
using namespace metal;
kernel void k(device atomic_uint* o [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    atomic_fetch_add_explicit(o + i, 1u, memory_order_acq_rel);
}
