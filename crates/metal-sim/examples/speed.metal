#include <metal_stdlib>
using namespace metal;

// What a thread costs that does nothing.
kernel void empty(device float* x [[buffer(0)]], constant uint& n [[buffer(1)]],
                  uint tid [[thread_index_in_threadgroup]]) {
    if (n == 0) {
        x[tid] = simd_sum(x[tid]);
    }
}

kernel void one_barrier(device float* x [[buffer(0)]], constant uint& n [[buffer(1)]],
                        uint tid [[thread_index_in_threadgroup]]) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (n == 0) {
        x[tid] = 0.0f;
    }
}

kernel void simd_sums(device float* x [[buffer(0)]], constant uint& n [[buffer(1)]],
                      uint i [[thread_position_in_grid]]) {
    float s = x[i];
    for (uint k = 0; k < n; k++) {
        s = simd_sum(s) * 0.03125f;
    }
    x[i] = s;
}

kernel void shuffles(device float* x [[buffer(0)]], constant uint& n [[buffer(1)]],
                     uint i [[thread_position_in_grid]]) {
    float s = x[i];
    for (uint k = 0; k < n; k++) {
        s = simd_shuffle_xor(s, 1 + (k & 15));
    }
    x[i] = s;
}

kernel void barriers(device float* x [[buffer(0)]], constant uint& n [[buffer(1)]],
                     uint i [[thread_position_in_grid]]) {
    float s = x[i];
    for (uint k = 0; k < n; k++) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        s += 1.0f;
    }
    x[i] = s;
}

// 16 independent products a round, as a GEMM tile has them.
kernel void products(device float* x [[buffer(0)]], constant uint& n [[buffer(1)]],
                     uint sg [[simdgroup_index_in_threadgroup]]) {
    simdgroup_half8x8 a[4], b[4];
    simdgroup_float8x8 c[4][4];
    for (uint i = 0; i < 4; i++) {
        a[i] = simdgroup_half8x8(0.5h);
        b[i] = simdgroup_half8x8(0.25h);
        for (uint j = 0; j < 4; j++) {
            c[i][j] = simdgroup_float8x8(0.0f);
        }
    }
    for (uint k = 0; k < n; k++) {
        for (uint i = 0; i < 4; i++) {
            for (uint j = 0; j < 4; j++) {
                simdgroup_multiply_accumulate(c[i][j], a[i], b[j], c[i][j]);
            }
        }
    }
    for (uint i = 0; i < 4; i++) {
        for (uint j = 0; j < 4; j++) {
            simdgroup_store(c[i][j], x + (sg * 16 + i * 4 + j) * 64);
        }
    }
}

// [4096, 4096] q8_0: codes in 8-byte pieces a lane, then half scales; 4 rows a simdgroup, 2 simdgroups a threadgroup.
kernel void gemv(device const uchar* weights [[buffer(0)]], device const float* x [[buffer(1)]],
                 device float* y [[buffer(2)]], uint group [[threadgroup_position_in_grid]],
                 uint sg [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    const uint COLS = 4096, ROWS = 4096;
    const uint row = (group * 2 + sg) * 4;
    device const half* scales = (device const half*)(weights + ROWS * COLS);
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (uint k = 0; k < COLS; k += 512) {
        float4 v[4];
        for (uint i = 0; i < 4; i++) {
            v[i] = *(device const float4*)(x + k + lane * 16 + 4 * i);
        }
        for (uint r = 0; r < 4; r++) {
            uint4 q = *(device const uint4*)(weights + ulong(row + r) * COLS + k + lane * 16);
            float part = 0.0f;
            for (uint i = 0; i < 4; i++) {
                float4 w = float4(as_type<char4>(q[i]));
                part = fma(w.x, v[i].x, fma(w.y, v[i].y, fma(w.z, v[i].z, fma(w.w, v[i].w, part))));
            }
            sums[r] = fma(float(scales[(row + r) * (COLS / 32) + (k + lane * 16) / 32]), part, sums[r]);
        }
    }
    for (uint r = 0; r < 4; r++) {
        sums[r] = simd_sum(sums[r]);
    }
    if (lane == 0) {
        for (uint r = 0; r < 4; r++) {
            y[row + r] = sums[r];
        }
    }
}
