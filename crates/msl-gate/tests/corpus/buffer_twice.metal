// expect: 4: two parameters have [[buffer(0)]]
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(0)]], device float* p [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    o[i] = p[i];
}
