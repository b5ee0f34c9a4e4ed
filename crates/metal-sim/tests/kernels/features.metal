#include <metal_stdlib>
using namespace metal;
struct Params { uint n; float scale; packed_float3 v; ushort k; };
template <typename T, int N> inline T sumv(vec<T, N> v) { T s = 0; for (int i = 0; i < N; i++) s += v[i]; return s; }
static inline void bump(thread float& x, thread const float* p) { x += p[0]; }
kernel void shuffles(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], uint i [[thread_position_in_grid]], ushort lane [[thread_index_in_simdgroup]]) {
  float v = a[i]; device float* r = o + i * 16;
  r[0] = simd_sum(v); r[1] = simd_max(v); r[2] = simd_min(v); r[3] = simd_prefix_inclusive_sum(v); r[4] = simd_prefix_exclusive_sum(v);
  r[5] = simd_shuffle_xor(v, 5); r[6] = simd_shuffle_down(v, 3); r[7] = simd_shuffle_up(v, 3); r[8] = simd_broadcast(v, 7); r[9] = simd_shuffle(v, ushort(31 - lane));
  r[10] = simd_any(v > 0.99f) ? 1.0f : 0.0f; r[11] = simd_all(v > -100.0f) ? 1.0f : 0.0f; r[12] = simd_is_first() ? 1.0f : 0.0f;
  r[13] = quad_sum(v); r[14] = simd_sum(float4(v)).y; r[15] = simd_shuffle_rotate_down(v, 1);
}
kernel void partial(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
  float v = 0; if (lane < 10) { v = simd_sum(a[i]); } o[i] = v; }
template <uint FACTOR> struct Total { template <typename T> static inline T of(T v) { return simd_sum(v) * T(FACTOR); } };
template <typename R> inline float totalled(float v) { return R::template of<float>(v); }
kernel void member(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], uint i [[thread_position_in_grid]]) {
  o[i] = totalled<Total<2>>(a[i]); }
kernel void types(device const half* h [[buffer(0)]], device const bfloat* b [[buffer(1)]], constant Params& p [[buffer(2)]], device float* o [[buffer(3)]], device const uchar* q [[buffer(4)]], uint i [[thread_position_in_grid]]) {
  half x = h[i], y = x * x + half(0.1h); float f = float(y) * p.scale;
  float4 v = float4(float3(p.v), 1.0f); v.xy = v.yx; half4 hv = half4(v); float4 w = float4(hv) + float4(uchar4(q[4 * i], q[4 * i + 1], q[4 * i + 2], q[4 * i + 3]));
  float t[2] = {0.5f, 1.5f}; bump(f, t); bump(f, t + 1);
  uint2 u = uint2(i, p.k); int3 z = int3(-1, 2, 3); z = max(z, int3(0)); float4 m = select(v, w, v < w);
  o[i] = f + float(b[i]) + dot(v, w) + sumv<float, 4>(w) + float(u.x + u.y) + float(z.x + z.y) + m.w + as_type<float>(as_type<uint>(1.25f)) + clamp(f, 0.0f, 1.0f) + fma(f, 2.0f, 1.0f) + precise::exp(-f) + fast::exp(-f) + float(popcount(p.n)) + 0.1;
}
kernel void tgdims(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], uint2 g [[thread_position_in_grid]], uint2 t [[thread_position_in_threadgroup]], uint2 n [[threads_per_grid]], uint2 sz [[threads_per_threadgroup]], uint ti [[thread_index_in_threadgroup]]) {
  threadgroup float m[4][8], tot, dyn[32]; threadgroup atomic_uint cnt;
  if (ti == 0) { tot = 0; atomic_store_explicit(&cnt, 0u, memory_order_relaxed); }
  m[t.y][t.x] = a[g.y * n.x + g.x]; dyn[ti] = float(ti);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  atomic_fetch_add_explicit(&cnt, 1u, memory_order_relaxed);
  if (ti == 0) { float s = 0; for (uint y = 0; y < sz.y; y++) for (uint x = 0; x < sz.x; x++) s += m[y][x]; tot = s; }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  o[g.y * n.x + g.x] = tot + dyn[sz.x * sz.y - 1] + float(atomic_load_explicit(&cnt, memory_order_relaxed));
}
kernel void mma_t(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]], device float* o [[buffer(2)]]) {
  simdgroup_float8x8 A, B, C = make_filled_simdgroup_matrix<float, 8, 8>(1.0f); simdgroup_load(A, a, 16, ulong2(8, 8)); simdgroup_load(B, b, 8, 0, true);
  simdgroup_multiply_accumulate(C, A, B, C); C.thread_elements()[0] *= 2.0f; C.thread_elements()[1] *= 2.0f; simdgroup_store(C, o, 8, 0, true);
}
