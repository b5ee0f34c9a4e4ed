// expect: 4: variable in constant address space must be initialized
#include <metal_stdlib>
using namespace metal;
constant float X;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    o[i] = X;
}
