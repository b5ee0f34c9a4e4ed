// MSL atomics, all relaxed. A checked build runs them on one thread and sees each access.
#pragma once
#include "msl_types.h"

namespace metal {
enum memory_order { memory_order_relaxed = 0 };
template <class T>
struct atomic {
  T v;
};
using atomic_int = atomic<int>;
using atomic_uint = atomic<uint>;
using atomic_float = atomic<float>;
using atomic_bool = atomic<bool>;
using atomic_ulong = atomic<ulong>;
}  // namespace metal

namespace msl {
template <class T>
struct identity {
  using type = T;
};
// A parameter that takes no part in deduction.
template <class T>
using same = typename identity<T>::type;
template <class T>
MSL_AI T* plain(const volatile metal::atomic<T>* p) {
  return const_cast<T*>(&p->v);
}
template <class T, class Op>
MSL_AI T update(volatile metal::atomic<T>* p, Op op) {
  T old;
  __atomic_load(plain(p), &old, __ATOMIC_RELAXED);
  for (;;) {
    T next = op(old);
    if (__atomic_compare_exchange(plain(p), &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return old;
  }
}
}  // namespace msl

namespace metal {
template <class T>
MSL_AI T atomic_load_explicit(const volatile atomic<T>* p, memory_order) {
  T v;
  __atomic_load(msl::plain(p), &v, __ATOMIC_RELAXED);
  return v;
}
template <class T>
MSL_AI void atomic_store_explicit(volatile atomic<T>* p, msl::same<T> x, memory_order) {
  __atomic_store(msl::plain(p), &x, __ATOMIC_RELAXED);
}
template <class T>
MSL_AI T atomic_exchange_explicit(volatile atomic<T>* p, msl::same<T> x, memory_order) {
  T old;
  __atomic_exchange(msl::plain(p), &x, &old, __ATOMIC_RELAXED);
  return old;
}
template <class T>
MSL_AI bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* p, T* expected, msl::same<T> desired,
                                                  memory_order, memory_order) {
  return __atomic_compare_exchange(msl::plain(p), expected, &desired, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
#define MSL_FETCH(NAME, EXPR)                                          \
  template <class T>                                                   \
  MSL_AI T NAME(volatile atomic<T>* p, msl::same<T> x, memory_order) { \
    return msl::update(p, [x](T old) { return (T)(EXPR); });           \
  }
MSL_FETCH(atomic_fetch_add_explicit, old + x)
MSL_FETCH(atomic_fetch_sub_explicit, old - x)
MSL_FETCH(atomic_fetch_min_explicit, old < x ? old : x)
MSL_FETCH(atomic_fetch_max_explicit, old < x ? x : old)
MSL_FETCH(atomic_fetch_and_explicit, old& x)
MSL_FETCH(atomic_fetch_or_explicit, old | x)
MSL_FETCH(atomic_fetch_xor_explicit, old ^ x)
#undef MSL_FETCH
}  // namespace metal
