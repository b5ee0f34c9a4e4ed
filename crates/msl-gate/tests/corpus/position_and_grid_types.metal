// expect: 5: must have the same type
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(0)]], uint i [[thread_position_in_grid]],
              ushort n [[threads_per_grid]]) {
    o[i] = float(n);
}
