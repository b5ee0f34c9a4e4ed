// simdgroup_matrix: 8x8, two elements a lane, in the layout Apple GPUs use (undocumented; MLX relies on it).
#pragma once
#include "msl_simd.h"

namespace metal {
template <class T, int R, int C>
struct simdgroup_matrix {
  static_assert(R == 8 && C == 8, "simdgroup_matrix is 8x8");
  using fragment = msl::ev<T, 2>;
  fragment e;
  MSL_AI simdgroup_matrix() { memset(&e, 0xFF, sizeof e); }
  MSL_AI explicit simdgroup_matrix(T v) { e[0] = e[1] = v; }
  MSL_AI fragment& thread_elements() { return e; }
  MSL_AI const fragment& thread_elements() const { return e; }
};
using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;
}  // namespace metal

namespace msl {
// The row of a lane's two elements, and the column of the first.
MSL_AI unsigned matrix_row(unsigned lane) { return (lane / 4 & 4) + lane / 2 % 4; }
MSL_AI unsigned matrix_column(unsigned lane) { return (lane / 4 & 2) * 2 + lane % 2 * 2; }

inline void nothing(Simdgroup*, uint32_t) {}
// Loads, stores and products need all lanes in one place; only products need them at one time.
MSL_AI void matrix_uniform(uint64_t site) {
  if (CHECKED) simd_wait(site, nothing);
}
inline void matrix_product(Simdgroup* g, uint32_t) {
  typedef float Row __attribute__((ext_vector_type(8)));
  const Row* b = (const Row*)g->b;
  for (int i = 0; i < 8; i++) {
    Row c = *(Row*)g->c[i];
    for (int k = 0; k < 8; k++) c += g->a[i][k] * b[k];
    *(Row*)g->c[i] = c;
  }
}
typedef float Pair __attribute__((ext_vector_type(2)));
template <class T>
MSL_AI void publish(float (&m)[8][8], unsigned row, unsigned column, const ev<T, 2>& e) {
  *(Pair*)&m[row][column] = __builtin_convertvector(e, Pair);
}
template <class D, class A, class B>
MSL_NOINSTR ev<D, 2> multiplied(ev<A, 2> a, ev<B, 2> b, Pair c, uint64_t site) {
  Simdgroup* g = my_simdgroup();
  unsigned lane = my_lane(), row = matrix_row(lane), column = matrix_column(lane);
  publish<A>(g->a, row, column, a);
  publish<B>(g->b, row, column, b);
  *(Pair*)&g->c[row][column] = c;
  if (CHECKED && lane == 0) worker()->matrix_ops++;
  simd_wait(site, matrix_product);
  return __builtin_convertvector(*(Pair*)&g->c[row][column], ev<D, 2>);
}
}  // namespace msl

namespace metal {
template <class T>
MSL_AI simdgroup_matrix<T, 8, 8> make_filled_simdgroup_matrix(T v) {
  return simdgroup_matrix<T, 8, 8>(v);
}
template <class T, int R, int C>
MSL_AI simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T v) {
  return simdgroup_matrix<T, R, C>(v);
}
template <class T>
MSL_AI void simdgroup_load(simdgroup_matrix<T, 8, 8>& d, const T* src, ulong stride = 8, ulong2 origin = 0,
                           bool transpose = false, MSL_SITE) {
  msl::matrix_uniform(site);
  unsigned lane = msl::my_lane(), r = msl::matrix_row(lane), c = msl::matrix_column(lane);
  if (transpose) {
    for (unsigned k = 0; k < 2; k++) d.e[k] = src[(origin.y + c + k) * stride + origin.x + r];
  } else {
    for (unsigned k = 0; k < 2; k++) d.e[k] = src[(origin.y + r) * stride + origin.x + c + k];
  }
}
template <class T>
MSL_AI void simdgroup_store(const simdgroup_matrix<T, 8, 8>& s, T* dst, ulong stride = 8, ulong2 origin = 0,
                            bool transpose = false, MSL_SITE) {
  msl::matrix_uniform(site);
  unsigned lane = msl::my_lane(), r = msl::matrix_row(lane), c = msl::matrix_column(lane);
  if (transpose) {
    for (unsigned k = 0; k < 2; k++) dst[(origin.y + c + k) * stride + origin.x + r] = s.e[k];
  } else {
    for (unsigned k = 0; k < 2; k++) dst[(origin.y + r) * stride + origin.x + c + k] = s.e[k];
  }
}
template <class D, class A, class B, class C>
MSL_AI void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                                          const simdgroup_matrix<B, 8, 8>& b, const simdgroup_matrix<C, 8, 8>& c,
                                          MSL_SITE) {
  d.e = msl::multiplied<D, A, B>(a.e, b.e, __builtin_convertvector(c.e, msl::Pair), site);
}
template <class D, class A, class B>
MSL_AI void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                               const simdgroup_matrix<B, 8, 8>& b, MSL_SITE) {
  d.e = msl::multiplied<D, A, B>(a.e, b.e, msl::Pair(0), site);
}
template <class A, class B>
MSL_AI simdgroup_matrix<A, 8, 8> operator*(const simdgroup_matrix<A, 8, 8>& a, const simdgroup_matrix<B, 8, 8>& b) {
  simdgroup_matrix<A, 8, 8> d;
  simdgroup_multiply(d, a, b);
  return d;
}
}  // namespace metal
