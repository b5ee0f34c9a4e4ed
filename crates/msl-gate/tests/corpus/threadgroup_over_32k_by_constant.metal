// expect: 6: 49152 bytes of threadgroup memory
#include <metal_stdlib>
using namespace metal;
constant constexpr uint N = 4096;
template <typename T> void f(threadgroup T* p) { p[0] = T(0); }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup half4 s[N];
    threadgroup float t[N];
    f(s);
    f(t);
    o[i] = t[0];
}
