#include <metal_stdlib>
using namespace metal;
// Overloads of one name call each other without recursion; two address spaces need two of them.
inline float total(float x) { return x; }
inline float total(float2 v) { return total(v.x) + total(v.y); }
inline float total(float4 v) { return total(v.xy) + total(v.zw); }
inline float first_of(device const float* p) { return p[0]; }
inline float first_of(constant float* p) { return p[0]; }
inline float first_of(threadgroup const float* p) { return p[0]; }
template <uint N> inline uint halvings() { return 1 + halvings<N / 2>(); }
template <> inline uint halvings<1>() { return 0; }
struct Scale {
    static constexpr constant uint FACTOR = 2;
    template <typename T> static T apply(T x) { return T(FACTOR) * x; }
};
template <typename F, typename T> inline T through(T x) { return F::template apply<T>(x); }
template <typename F, uint N> inline void fill(threadgroup float* shared, uint tid) { shared[tid] = through<F>(float(N)); }
// T is a type above, a number here.
inline uint product(uint M) {
    constexpr uint T = 2;
    return T * M + M & T;
}
constant float TABLE[2] = {0.5f, 1.5f};
constant constexpr uint LANES = 32;
[[max_total_threads_per_threadgroup(LANES * 2)]]
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], uint3 g [[threadgroup_position_in_grid]],
              uint tid [[thread_index_in_threadgroup]], ushort lane [[thread_index_in_simdgroup]]) {
    threadgroup float shared[64];
    threadgroup half tile[2][32], single;
    fill<Scale, 3>(shared, tid);
    tile[tid / 32][lane] = half(lane);
    if (tid == 0) {
        single = 1.0h;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
    thread float4 v = float4(a[0], a[1], 0.0f, 1.0f);
    thread float4* p = &v;
    device const packed_char4* q = (device const packed_char4*)(a + 3);
    const float x = total(*p) * total(float4(char4(q[1]))) + first_of(a) + first_of(TABLE) + first_of(shared);
    o[g.x * 64 + tid] = x * float(halvings<16>()) + float(tile[1][31 - lane]) + float(single) + float(tid & lane);
}
