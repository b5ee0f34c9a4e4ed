// expect: 4: atomic_ulong is on Apple9
#include <metal_stdlib>
using namespace metal;
kernel void k(device atomic_ulong* o [[buffer(0)]], uint i [[thread_position_in_grid]]) {}
