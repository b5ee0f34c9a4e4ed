#include <metal_stdlib>
using namespace metal;
struct block_q4_0 { half d; uchar qs[16]; };
kernel void k(device const block_q4_0* x [[buffer(0)]], device float* o [[buffer(1)]], uint i [[thread_position_in_grid]]) { block_q4_0 b = x[i]; device const block_q4_0& c = x[i]; o[i] = float(b.d) + float(c.qs[0]); }