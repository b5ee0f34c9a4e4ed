// simdgroup_matrix: 8x8, two elements a lane, in the layout Apple GPUs use (undocumented; MLX relies on it).
#pragma once
#include "msl_simd.h"

namespace msl {
typedef float Pair __attribute__((ext_vector_type(2)));
inline void nothing(Simdgroup*, uint32_t) {}
// Loads, stores and products need all lanes in one place; only products need them at one time.
MSL_AI void matrix_uniform(uint64_t site) {
  if (CHECKED) simd_wait(site, nothing);
}
// Waits for the products that were asked for in `batch`.
MSL_NOINSTR void settle(uint32_t batch) {
  Simdgroup* g = my_simdgroup();
  if (batch == g->products_done) simd_wait(g->products_site, matrix_products);
}
// Asks for sum += a * b; returns the batch in which it will be done. A checked build has it done at once, so that
// lanes that are not all here are reported with this line.
template <class A, class B>
MSL_NOINSTR uint32_t ask_product(Pair* sum, ev<A, 2> a, ev<B, 2> b, uint64_t site) {
  Simdgroup* g = my_simdgroup();
  unsigned lane = my_lane(), row = matrix_row(lane), column = matrix_column(lane);
  uint32_t batch = g->products_done;
  unsigned count = g->products[lane]++;
  MatrixProduct& p = g->queue[count];
  *(Pair*)&p.a[row][column] = __builtin_convertvector(a, Pair);
  *(Pair*)&p.b[row][column] = __builtin_convertvector(b, Pair);
  p.sum[lane] = (float*)sum;
  g->products_site = site;
  if (CHECKED || count + 1 == MATRIX_QUEUE) simd_wait(site, matrix_products);
  return batch;
}
}  // namespace msl

namespace metal {
template <class T, int R, int C>
struct simdgroup_matrix {
  static_assert(R == 8 && C == 8, "simdgroup_matrix is 8x8");
  using fragment = msl::ev<T, 2>;
  fragment e;
  uint32_t batch = 0;  // of products, that may still have to be added to `e`
  MSL_AI simdgroup_matrix() { memset(&e, 0xFF, sizeof e); }
  MSL_AI explicit simdgroup_matrix(T v) { e[0] = e[1] = v; }
  MSL_AI simdgroup_matrix(const simdgroup_matrix& other) : e(other.settled()) {}
  MSL_AI simdgroup_matrix& operator=(const simdgroup_matrix& other) {
    fragment v = other.settled();
    settled();
    e = v, batch = 0;
    return *this;
  }
  MSL_AI ~simdgroup_matrix() { settled(); }
  MSL_AI const fragment& settled() const {
    if (batch) msl::settle(batch);
    return e;
  }
  MSL_AI fragment& thread_elements() {
    settled();
    batch = 0;
    return e;
  }
  MSL_AI const fragment& thread_elements() const { return settled(); }
};
using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;
}  // namespace metal

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
  d.settled();
  d.batch = 0;
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
  s.settled();
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
  // by value: d may be one of them
  msl::ev<A, 2> left = a.settled();
  msl::ev<B, 2> right = b.settled();
  if constexpr (std::is_same_v<D, float> && std::is_same_v<C, float>) {
    if ((const void*)&c != (const void*)&d) d = c;
    d.batch = msl::ask_product<A, B>((msl::Pair*)&d.e, left, right, site);
  } else {
    msl::Pair sum = __builtin_convertvector(c.settled(), msl::Pair);
    msl::settle(msl::ask_product<A, B>(&sum, left, right, site));
    d.settled();
    d.e = __builtin_convertvector(sum, msl::ev<D, 2>), d.batch = 0;
  }
}
template <class D, class A, class B>
MSL_AI void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                               const simdgroup_matrix<B, 8, 8>& b, MSL_SITE) {
  simdgroup_multiply_accumulate(d, a, b, simdgroup_matrix<float, 8, 8>(0.0f), site);
}
template <class A, class B>
MSL_AI simdgroup_matrix<A, 8, 8> operator*(const simdgroup_matrix<A, 8, 8>& a, const simdgroup_matrix<B, 8, 8>& b) {
  simdgroup_matrix<A, 8, 8> d;
  simdgroup_multiply(d, a, b);
  return d;
}
}  // namespace metal
