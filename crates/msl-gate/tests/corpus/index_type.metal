// expect: 5: thread_index_in_threadgroup must be uint
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(0)]], uint i [[thread_position_in_threadgroup]],
              ushort t [[thread_index_in_threadgroup]]) {
    o[i] = float(t);
}
