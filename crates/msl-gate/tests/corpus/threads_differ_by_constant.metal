// expect: 7: but the host dispatches 128 threads
// threads: k 128
#include <metal_stdlib>
using namespace metal;
constant constexpr uint LANES = 32;
[[max_total_threads_per_threadgroup(LANES * 2)]]
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    o[i] = 0.0f;
}
