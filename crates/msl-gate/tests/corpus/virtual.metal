// expect: 5: virtual functions do not exist in MSL
#include <metal_stdlib>
using namespace metal;
struct S {
    virtual float f() { return 0.0f; }
};
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    S s;
    o[i] = s.f();
}
