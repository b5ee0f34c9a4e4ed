// expect: 4: noexcept does not exist in MSL
#include <metal_stdlib>
using namespace metal;
float f(float x) noexcept { return x; }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    o[i] = f(1.0f);
}
