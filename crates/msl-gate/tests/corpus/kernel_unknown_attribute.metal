// expect: 4: attribute thread_pos_in_grid, which is not supported
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(0)]], uint i [[thread_pos_in_grid]]) {
    o[i] = 0.0f;
}
