// expect: 4: must be ushort or uint, scalar or vector, not float
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(0)]], float i [[thread_position_in_grid]]) {
    o[0] = i;
}
