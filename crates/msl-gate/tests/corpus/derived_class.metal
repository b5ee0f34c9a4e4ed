// expect: 7: derived classes do not exist in MSL
#include <metal_stdlib>
using namespace metal;
struct A {
    float x;
};
struct B : A {
    float y;
};
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    B b;
    b.y = 0.0f;
    o[i] = b.y;
}
