#include <metal_stdlib>
using namespace metal;
void f(thread float& p, const thread float* q) { p = q[0]; }
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
float x, y[2] = {1, 2}; f(x, y); o[i] = x;
}
