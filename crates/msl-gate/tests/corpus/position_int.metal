// expect: 4: must be ushort or uint, scalar or vector, not int
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(0)]], int i [[thread_position_in_grid]]) {
    o[i] = 0.0f;
}
