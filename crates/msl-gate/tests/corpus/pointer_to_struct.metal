// expect: 8: pointer to block must have an explicit address space
#include <metal_stdlib>
using namespace metal;
struct block { half d; uchar q[32]; };
kernel void k(device const float* a [[buffer(0)]], device float* o [[buffer(1)]], constant uint& n [[buffer(2)]],
              uint i [[thread_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
    block b;
    block* p = &b;
    o[i] = float(p->d);
}
