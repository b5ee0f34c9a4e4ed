#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;
// One value of each feature; the test has the list of what they must be.
constant constexpr uint N = 4;
constant float TABLE[N] = {0.5f, 1.5f, 2.5f, 3.5f};
struct Params { uint n; float scale; packed_float3 v; ushort k; };
struct block { half d; char qs[32]; };
struct Doubler { static constexpr constant uint FACTOR = 2; template <typename T> static T apply(T x) { return T(FACTOR) * x; } };
template <typename T, int M> inline T sum_of(vec<T, M> v) { T s = 0; for (int i = 0; i < M; i++) { s += v[i]; } return s; }
template <typename T> inline vec<T, 4> ramp(T x) { return vec<T, 4>(x, x + T(1), x + T(2), x + T(3)); }
template <typename F, typename T> inline T through(T x) { return F::template apply<T>(x); }
static inline void add_to(thread float& x, thread const float* p) { x += p[0]; }
inline void fill(threadgroup float* shared, float value, uint tid) { shared[tid] = value; }
inline float last(threadgroup const float* shared, uint n) { return shared[n - 1]; }
#define SQUARE(x) ((x) * (x))
[[max_total_threads_per_threadgroup(N * 8)]]
kernel void language(device const half* h [[buffer(0)]], constant Params& p [[buffer(1)]], device const uchar* bytes [[buffer(2)]],
                     device float* o [[buffer(3)]], device atomic_uint* counter [[buffer(4)]],
                     uint3 g [[threadgroup_position_in_grid]], uint tid [[thread_index_in_threadgroup]], uint3 size [[threads_per_threadgroup]]) {
  const uint n = size.x;
  threadgroup float shared[32];
  threadgroup half tile[2][8], single;
  threadgroup_barrier(mem_flags::mem_none);
  fill(shared, float(tid), tid);
  if (tid < 16) {
    tile[tid / 8][tid % 8] = half(tid);
  }
  if (tid == 3) {
    single = 7.0h;
  }
  atomic_fetch_add_explicit(counter, 1u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
  device const block* b = (device const block*)bytes;
  device const packed_char4* q = (device const packed_char4*)b[1].qs;
  const float4 codes = float4(char4(q[1]));
  float t[2] = {0.5f, 1.5f}, x = 1.0f;
  add_to(x, t);
  add_to(x, t + 1);
  float4 v = float4(float3(p.v), 1.0f);
  v.xy = v.yx;
  half y = h[0] * h[0] + 0.5h;
  int3 z = max(int3(-1, 2, 3), int3(0));
  if (tid != 0) {
    return;
  }
  uint i = 0;
  o[i++] = float(y);                                     // 0
  o[i++] = sum_of<float, 4>(v);
  o[i++] = v.x * 100.0f + v.y * 10.0f + v.z;
  o[i++] = x;
  o[i++] = codes.x + 10.0f * codes.y + 100.0f * codes.z + 1000.0f * codes.w;
  o[i++] = float(b[1].d);                                // 5
  o[i++] = last(shared, n) + float(tile[1][7]) + float(single);
  o[i++] = float(z.x + z.y + z.z);
  o[i++] = TABLE[p.n & 3];
  o[i++] = as_type<float>(as_type<uint>(1.25f) + 0x800000u);
  o[i++] = float(as_type<half2>(0x3C004000u).x);         // 10
  o[i++] = through<Doubler>(3.0f) + float(through<Doubler>(int(4)));
  o[i++] = sum_of(ramp<float>(1.0f)) + float(ramp<half>(1.0h).w);
  o[i++] = clamp(5.0f, 0.0f, 1.0f) + fma(2.0f, 3.0f, 4.0f) + mix(1.0f, 3.0f, 0.5f);
  o[i++] = precise::exp(1.0f);
  o[i++] = fast::rsqrt(4.0f) + precise::sqrt(9.0f);      // 15
  o[i++] = float(popcount(p.n)) + float(clz(1u)) + float(ctz(8u));
  o[i++] = select(1.0f, 2.0f, p.n > 3) + select(v, v * 2.0f, v < float4(2.0f)).w;
  o[i++] = dot(v, float4(1.0f, 0.0f, 0.0f, 1.0f)) + length(float2(3.0f, 4.0f));
  o[i++] = SQUARE(p.scale) + float(p.k);
  o[i++] = float(atomic_load_explicit(counter, memory_order_relaxed)); // 20
  o[i++] = float(uint(uchar(200)) + uint(ushort2(3, 4).y)) + float(ulong(5) << 1);
  o[i++] = 0.1 * 10;
  o[i++] = float(bool(p.n)) + float(any(v > 2.0f)) + float(all(v > 2.0f));
  o[i++] = float(min(int(p.n), 3)) + max(p.scale, 0.25f) + abs(-2.0f) + float(abs(-3));
  o[i++] = tanh(0.5f) + precise::tanh(0.5f) + pow(2.0f, 3.0f) + exp2(3.0f); // 25
  o[i++] = floor(-0.5f) + ceil(0.5f) + round(2.5f) + rint(2.5f) + trunc(-1.5f) + sign(-3.0f);
  o[i++] = isnan(NAN) ? 1.0f : 0.0f;
  o[i++] = float(numeric_limits<half>::max()) + float(numeric_limits<int>::max() == INT_MAX);
  o[i++] = float(g.x + g.y + g.z) + float(max(2u, p.n));
  o[i++] = float(char(-3)) + float(extract_bits(0xF0u, 4u, 4u)) + float(insert_bits(0u, 3u, 4u, 2u)); // 30
}
