#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;
// What an NVIDIA GPU does in its own way: operations of simdgroups, products of matrices, atomics, halves.
kernel void simdgroups(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], uint i [[thread_position_in_grid]],
                       ushort lane [[thread_index_in_simdgroup]]) {
  const float v = a[i];
  device float* r = o + i * 20;
  r[0] = simd_sum(v);
  r[1] = simd_max(v);
  r[2] = simd_min(v);
  r[3] = simd_prefix_inclusive_sum(v);
  r[4] = simd_prefix_exclusive_sum(v);
  r[5] = simd_shuffle_xor(v, 5);
  r[6] = simd_shuffle_down(v, 3);
  r[7] = simd_shuffle_up(v, 3);
  r[8] = simd_broadcast(v, 7);
  r[9] = simd_shuffle(v, ushort(31 - lane));
  r[10] = simd_any(v > 0.99f) ? 1.0f : 0.0f;
  r[11] = simd_all(v > -100.0f) ? 1.0f : 0.0f;
  r[12] = simd_is_first() ? 1.0f : 0.0f;
  r[13] = quad_sum(v);
  r[14] = simd_sum(float4(v, 1.0f, v, v)).y;
  r[15] = simd_shuffle_rotate_down(v, 1);
  r[16] = float(simd_shuffle_xor(half(v), 1));
  r[17] = float(simd_sum(ulong(lane) << 33) >> 33);
  r[18] = simd_shuffle_and_fill_down(v, 7.0f, 2);
  r[19] = float(popcount(uint(ulong(simd_ballot(lane % 3 == 0)))));
}
template <typename T>
inline void product(device const T* a, device const T* b, device float* o, threadgroup T* tile, uint lane) {
  for (uint e = lane; e < 64; e += 32) {
    tile[e] = b[e];
  }
  simdgroup_barrier(mem_flags::mem_threadgroup);
  simdgroup_matrix<T, 8, 8> x, y, z;
  simdgroup_load(x, a, 8);
  simdgroup_load(y, tile, 8);
  simdgroup_load(z, tile, 8, ulong2(0, 0), true);
  simdgroup_matrix<float, 8, 8> s = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
  simdgroup_multiply_accumulate(s, x, y, s); // a b + 1
  simdgroup_store(s, o, 8);
  simdgroup_multiply(s, x, z); // a b^T
  simdgroup_store(s, o + 64, 8);
  simdgroup_store(s, o + 128, 8, ulong2(0, 0), true);
}
kernel void products_f32(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]], device float* o [[buffer(2)]],
                         uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float tile[64];
  product(a, b, o, tile, lane);
}
kernel void products_f16(device const half* a [[buffer(0)]], device const half* b [[buffer(1)]], device float* o [[buffer(2)]],
                         uint lane [[thread_index_in_simdgroup]]) {
  threadgroup half tile[64];
  product(a, b, o, tile, lane);
}
kernel void products_bf16(device const bfloat* a [[buffer(0)]], device const bfloat* b [[buffer(1)]],
                          device float* o [[buffer(2)]], uint lane [[thread_index_in_simdgroup]]) {
  threadgroup bfloat tile[64];
  product(a, b, o, tile, lane);
}
kernel void atomics(device atomic_uint* sums [[buffer(0)]], device atomic_float* highest [[buffer(1)]],
                    uint i [[thread_position_in_grid]]) {
  threadgroup atomic_uint count;
  if (i % 256 == 0) {
    atomic_store_explicit(&count, 0u, memory_order_relaxed);
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  atomic_fetch_add_explicit(&count, 1u, memory_order_relaxed);
  atomic_fetch_add_explicit(&sums[0], i, memory_order_relaxed);
  atomic_fetch_max_explicit(&sums[1], i, memory_order_relaxed);
  atomic_fetch_or_explicit(&sums[2], 1u << (i % 32), memory_order_relaxed);
  atomic_fetch_max_explicit(highest, float(i) * 0.5f, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (i % 256 == 255) {
    atomic_fetch_add_explicit(&sums[3], atomic_load_explicit(&count, memory_order_relaxed), memory_order_relaxed);
  }
}
// y[i] = x[i] + 1, after `spins` rounds that take time, so that a dispatch that does not wait for it shows.
kernel void slow_add(device const float* x [[buffer(0)]], device float* y [[buffer(1)]], constant uint& spins [[buffer(2)]],
                     uint i [[thread_position_in_grid]]) {
  float v = x[i];
  for (uint n = 0; n < spins; ++n) {
    v = fma(v, 0.999999f, 1.0e-6f * v);
  }
  y[i] = x[i] + (v == -1.0f ? 2.0f : 1.0f);
}
