// expect: 5: no viable overloaded
#include <metal_stdlib>
using namespace metal;
kernel void k(device atomic_uint* o [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    o[i] += 1;
}
