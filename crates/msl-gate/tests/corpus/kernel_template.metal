// expect: 4: template kernels
#include <metal_stdlib>
using namespace metal;
template <typename T> kernel void k(device T* o [[buffer(0)]]) { o[0] = T(0); }
