// What NVRTC has built in and the headers in cpp/cuda use, for clang's CUDA front end without the CUDA toolkit: enough
// to compile, not to link.
#pragma once
#define __device__ __attribute__((device))
#define __global__  // the pragma below makes entries device functions, which may not be global too
#define __shared__ __attribute__((shared))
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(n)
#define memcpy __builtin_memcpy
// Every function and variable is of the device, as NVRTC takes them.
#pragma clang attribute push(__device__, apply_to = any(function, variable(is_global)))

struct Dim {
  unsigned x, y, z;
};
extern const Dim threadIdx, blockIdx, blockDim, gridDim;
void __syncthreads();
void __trap();
void __syncwarp();
unsigned __shfl_sync(unsigned mask, unsigned v, int lane, int width);
unsigned __ballot_sync(unsigned mask, int v);
unsigned atomicCAS(unsigned* p, unsigned compare, unsigned v);
unsigned atomicAdd(unsigned* p, unsigned v);
int atomicAdd(int* p, int v);
float atomicAdd(float* p, float v);
int __popc(unsigned x);
int __popcll(unsigned long long x);
int __clz(int x);
int __ffs(int x);
unsigned __brev(unsigned x);
unsigned __umulhi(unsigned a, unsigned b);
int __mulhi(int a, int b);
unsigned __float_as_uint(float x);
float __uint_as_float(unsigned x);
unsigned __byte_perm(unsigned x, unsigned y, unsigned s);
#define UNARY(f) float f(float x);
UNARY(expf)
UNARY(exp2f) UNARY(exp10f) UNARY(logf) UNARY(log2f) UNARY(log10f) UNARY(sinf) UNARY(cosf) UNARY(tanf) UNARY(sinhf)
    UNARY(coshf) UNARY(tanhf) UNARY(asinf) UNARY(acosf) UNARY(atanf) UNARY(asinhf) UNARY(acoshf) UNARY(atanhf)
        UNARY(sinpif) UNARY(cospif) UNARY(sqrtf) UNARY(rsqrtf) UNARY(floorf) UNARY(ceilf) UNARY(truncf) UNARY(rintf)
            UNARY(roundf) UNARY(fabsf) UNARY(__expf) UNARY(__exp10f) UNARY(__logf) UNARY(__log2f) UNARY(__log10f)
                UNARY(__sinf) UNARY(__cosf)
#undef UNARY
#define BINARY(f) float f(float x, float y);
                    BINARY(powf) BINARY(__powf) BINARY(fminf) BINARY(fmaxf) BINARY(fmodf) BINARY(fdimf) BINARY(atan2f)
                        BINARY(copysignf)
#undef BINARY
                            float fmaf(float x, float y, float z);
float ldexpf(float x, int e);
