// expect: 4: must be a pointer or a reference
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(0)]], uint n [[buffer(1)]], uint i [[thread_position_in_grid]]) {
    o[i] = float(n);
}
