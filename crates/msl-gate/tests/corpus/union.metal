// expect: 4: use as_type<>
#include <metal_stdlib>
using namespace metal;
union U {
    float f;
    uint u;
};
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    U x;
    x.f = 1.0f;
    o[i] = x.f;
}
