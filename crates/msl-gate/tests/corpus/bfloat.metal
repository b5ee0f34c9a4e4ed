// expect: 4: bfloat needs MSL 3.1, the host asks for 3.0
#include <metal_stdlib>
using namespace metal;
kernel void k(device const bfloat* a [[buffer(0)]], device float* o [[buffer(1)]], uint i [[thread_position_in_grid]]) {
    o[i] = float(a[i]);
}
