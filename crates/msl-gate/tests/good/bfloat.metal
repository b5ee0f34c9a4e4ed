// version: 3.1
#include <metal_stdlib>
using namespace metal;
kernel void k(device const bfloat* a [[buffer(0)]], device float* o [[buffer(1)]], uint i [[thread_position_in_grid]]) { bfloat b = a[i]; o[i] = float(b) + float(a[i]); }