#include <metal_stdlib>
using namespace metal;
kernel void k(device atomic_uint* o [[buffer(0)]], uint i [[thread_position_in_grid]]) { threadgroup atomic_uint c; atomic_store_explicit(&c, 0u, memory_order_relaxed); atomic_fetch_add_explicit(&o[0], 1u, memory_order_relaxed); }