// expect: 4: parameter i has no attribute
#include <metal_stdlib>
using namespace metal;
kernel void k(device float* o [[buffer(0)]], uint i) {
    o[i] = 0.0f;
}
