// simdgroup_matrix 8x8 on the tensor cores (PTX ISA, "mma.m16n8k8").
//
// A matrix lies as a fragment of that instruction: lane l holds row l / 4, columns 2 (l % 4) and the next; where
// `transposed` is set it holds that of the transpose. The right operand must be transposed: one that was loaded so, as
// weights are, costs nothing, another a movmatrix. `transposed` is a constant after inlining.
//
// Products of halves or of bfloats are exact and their sums float. A product of floats is three of tf32, to about 23
// bits, two of them in the rows of one instruction. The unit cuts sums off instead of rounding them, so it sums eight
// products only, and ordinary additions do the rest. Else half of the instruction's rows are unused. This is not the order
// of lanes of an Apple GPU, so that `thread_elements` is refused by the rewriting.
#pragma once
#include "msl_cuda_simd.h"

namespace msl {
inline unsigned movmatrix(unsigned v) {
  unsigned r;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(v));
  return r;
}
template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T v[2];
};
template <class T>
inline void transpose(T* e) {
  if constexpr (sizeof(T) == 2) {
    unsigned v;
    memcpy(&v, e, 4);
    v = movmatrix(v);
    memcpy(e, &v, 4);
  } else {
    unsigned v[2];
    memcpy(v, e, 8);
    const unsigned low = movmatrix(__byte_perm(v[0], v[1], 0x5410)), high = movmatrix(__byte_perm(v[0], v[1], 0x7632));
    v[0] = __byte_perm(low, high, 0x5410);
    v[1] = __byte_perm(low, high, 0x7632);
    memcpy(e, v, 8);
  }
}
// d = a b; what is undefined only reaches the rows that nobody reads.
#define MSL_MMA(NAME, TYPE)                                                                                     \
  inline void NAME(float* d, const void* a, const void* b) {                                                    \
    float x, y, u, v;                                                                                           \
    unsigned left, right, unused;                                                                               \
    memcpy(&left, a, 4);                                                                                        \
    memcpy(&right, b, 4);                                                                                       \
    asm("mma.sync.aligned.m16n8k8.row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3},{%4,%5},{%6},{%7,%8,%9,%10};" \
        : "=f"(d[0]), "=f"(d[1]), "=f"(x), "=f"(y)                                                              \
        : "r"(left), "r"(unused), "r"(right), "f"(0.0f), "f"(0.0f), "f"(u), "f"(v));                            \
  }
MSL_MMA(multiply_f16, "f16")
MSL_MMA(multiply_bf16, "bf16")
#undef MSL_MMA
// d = a b + c and e = f b. k is permuted alike in a, f and b, so that a lane's two elements are its two k.
inline void multiply_tf32(float* d, float* e, const float* a, const float* f, const float* b, const float* c) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(e[0]), "=f"(e[1])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(f[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(f[1])),
        "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])), "f"(c[0]), "f"(c[1]), "f"(0.0f), "f"(0.0f));
}
// The nearest number that tf32 has; of equals the larger. By integers, since the instruction for it becomes five that look for
// numbers that are none: of such a number what is left over is none either, and is added.
inline float nearest_tf32(float v) {
  return __uint_as_float((__float_as_uint(v) + 0x1000u) & 0xffffe000u);
}
}  // namespace msl

namespace metal {
template <class T, int R = 8, int C = 8>
struct simdgroup_matrix {
  static_assert(R == 8 && C == 8, "matrices are 8x8");
  T e[2];
  bool transposed;
  simdgroup_matrix() : transposed(false) {}
  explicit simdgroup_matrix(T v) : transposed(false) { e[0] = e[1] = v; }
  void turn(bool to) {
    if (transposed != to) {
      msl::transpose(e);
      transposed = to;
    }
  }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;

template <class T, int R = 8, int C = 8>
inline simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T v) {
  return simdgroup_matrix<T, R, C>(v);
}
// Two elements of a row are one access: a tile must be aligned to two elements, or the launch fails.
template <class T>
inline void simdgroup_load(simdgroup_matrix<T, 8, 8>& d, const T* source, ulong stride = 8, ulong2 origin = ulong2(0ul),
                           bool transpose = false) {
  const uint lane = msl::lane();
  source += origin.y * stride + origin.x + lane / 4 * stride + 2 * (lane % 4);
  const msl::Pair<T> pair = *(const msl::Pair<T>*)source;
  d.e[0] = pair.v[0];
  d.e[1] = pair.v[1];
  d.transposed = transpose;
}
template <class T>
inline void simdgroup_store(simdgroup_matrix<T, 8, 8> s, T* to, ulong stride = 8, ulong2 origin = ulong2(0ul),
                            bool transpose = false) {
  const uint lane = msl::lane();
  to += origin.y * stride + origin.x + lane / 4 * stride + 2 * (lane % 4);
  s.turn(transpose);
  msl::Pair<T> pair;
  pair.v[0] = s.e[0];
  pair.v[1] = s.e[1];
  *(msl::Pair<T>*)to = pair;
}
template <class D, class A, class B, class C>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                          simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c) {
  a.turn(false);
  b.turn(true);
  c.turn(false);
  const float sum[2] = {(float)c.e[0], (float)c.e[1]};
  float product[2];
  if constexpr (is_same_v<A, half> && is_same_v<B, half>) {
    msl::multiply_f16(product, a.e, b.e);
  } else if constexpr (is_same_v<A, bfloat> && is_same_v<B, bfloat>) {
    msl::multiply_bf16(product, a.e, b.e);
  } else {
    const float left[2] = {(float)a.e[0], (float)a.e[1]}, right[2] = {(float)b.e[0], (float)b.e[1]};
    float high_left[2], high_right[2], low_left[2], low_right[2];
    for (int i = 0; i < 2; ++i) {
      high_left[i] = msl::nearest_tf32(left[i]);
      high_right[i] = msl::nearest_tf32(right[i]);
      low_left[i] = msl::nearest_tf32(left[i] - high_left[i]);
      low_right[i] = msl::nearest_tf32(right[i] - high_right[i]);
    }
    const float zero[2] = {0.0f, 0.0f};
    float unused[2], low[2];
    msl::multiply_tf32(product, unused, high_left, low_left, low_right, zero);
    msl::multiply_tf32(product, low, high_left, low_left, high_right, product);
    product[0] += low[0];
    product[1] += low[1];
  }
  d.e[0] = D(sum[0] + product[0]);
  d.e[1] = D(sum[1] + product[1]);
  d.transposed = false;
}
template <class D, class A, class B>
inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                               const simdgroup_matrix<B, 8, 8>& b) {
  simdgroup_multiply_accumulate(d, a, b, simdgroup_matrix<float, 8, 8>(0.0f));
}
template <class A, class B>
inline simdgroup_matrix<A, 8, 8> operator*(const simdgroup_matrix<A, 8, 8>& a, const simdgroup_matrix<B, 8, 8>& b) {
  simdgroup_matrix<A, 8, 8> d;
  simdgroup_multiply(d, a, b);
  return d;
}
}  // namespace metal
