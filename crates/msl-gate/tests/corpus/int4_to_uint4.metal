// expect: 7: with an lvalue of type 'thread int4'
#include <metal_stdlib>
using namespace metal;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    int4 s = int4(1);
    uint4 u = s;
    o[i] = float(u.x);
}
