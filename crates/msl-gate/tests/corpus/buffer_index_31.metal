// expect: 4: [[buffer(31)]] is not a number of at most 30
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(31)]], uint i [[thread_position_in_grid]]) {
    o[i] = 0.0f;
}
