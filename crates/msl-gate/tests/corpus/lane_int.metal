// expect: 4: must be ushort or uint, not int
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(0)]], int lane [[thread_index_in_simdgroup]]) {
    o[lane] = 0.0f;
}
