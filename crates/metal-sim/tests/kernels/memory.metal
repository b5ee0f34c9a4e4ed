#include <metal_stdlib>
using namespace metal;
// Kernels for the tests of device memory: what is initialised, who is whose neighbour, what needs a barrier.
kernel void copy(device const float* from [[buffer(0)]], device float* to [[buffer(1)]], uint i [[thread_position_in_grid]]) {
  to[i] = from[i];
}
kernel void copy_from_next(device const float* from [[buffer(0)]], device float* to [[buffer(1)]], uint i [[thread_position_in_grid]]) {
  to[i] = from[i + 1];
}
kernel void twice(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
  x[i] *= 2.0f;
}
kernel void add(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]], device float* sum [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  sum[i] = a[i] + b[i];
}
kernel void write_through_const(device const float* a [[buffer(0)]], uint i [[thread_position_in_grid]]) {
  ((device float*)a)[i] = 1.0f;
}
kernel void halves(device const half* from [[buffer(0)]], device half* to [[buffer(1)]], uint i [[thread_position_in_grid]]) {
  to[2 * i] = from[i];
  to[2 * i + 1] = from[i] + 1.0h;
}
kernel void barriers(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
  simdgroup_float8x8 a(0.5f), b(2.0f), c(1.0f);
  for (uint k = 0; k < 3; k++) {
    simdgroup_multiply_accumulate(c, a, b, c);
    threadgroup_barrier(mem_flags::mem_none);
  }
  x[i] = c.thread_elements()[0];
}

// 64 threads: each stores 4 bytes to threadgroup memory and loads 8.
kernel void shares(device float* x [[buffer(0)]], uint i [[thread_index_in_threadgroup]]) {
  threadgroup float t[64];
  t[i] = x[i];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  x[i] = t[63 - i] + t[i];
}
