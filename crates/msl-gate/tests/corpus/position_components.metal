// expect: 5: must have the same number of components
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(0)]], uint2 i [[thread_position_in_grid]],
              uint3 g [[threadgroup_position_in_grid]]) {
    o[i.x] = float(g.x);
}
