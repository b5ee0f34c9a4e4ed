#include <metal_stdlib>
using namespace metal;
constant float TAB[4] = {1.0f, 2.0f, 3.0f, 4.0f};
constant uint N = 4;
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
float x[N]; x[0] = TAB[i & 3]; o[i] = x[0];
}
