// expect: 4: pointer to float must have an explicit address space
#include <metal_stdlib>
using namespace metal;
kernel void k(float* a [[buffer(0)]], uint i [[thread_position_in_grid]]) { a[i] = 0.0f; }
