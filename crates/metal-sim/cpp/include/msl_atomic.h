// MSL atomics, all relaxed.
#pragma once
#include "msl_types.h"

namespace metal {
// ---- atomics ----
enum memory_order { memory_order_relaxed = 0 };
template <class T> struct atomic { T v; };
using atomic_int = atomic<int>; using atomic_uint = atomic<uint>; using atomic_float = atomic<float>; using atomic_bool = atomic<bool>; using atomic_ulong = atomic<ulong>;
template <class T> struct msl_id { using t = T; }; template <class T> using nd = typename msl_id<T>::t;
template <class T> MSL_AI T atomic_load_explicit(const volatile atomic<T>* p, memory_order) { T r; __atomic_load(const_cast<T*>(&p->v), &r, __ATOMIC_RELAXED); return r; }
template <class T> MSL_AI void atomic_store_explicit(volatile atomic<T>* p, nd<T> x, memory_order) { __atomic_store(const_cast<T*>(&p->v), &x, __ATOMIC_RELAXED); }
template <class T> MSL_AI T atomic_exchange_explicit(volatile atomic<T>* p, nd<T> x, memory_order) { T r; __atomic_exchange(const_cast<T*>(&p->v), &x, &r, __ATOMIC_RELAXED); return r; }
template <class T> MSL_AI bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* p, T* e, nd<T> d, memory_order, memory_order) { return __atomic_compare_exchange(const_cast<T*>(&p->v), e, &d, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED); }
#define MSL_AT(NAME, EXPR) template <class T> MSL_AI T NAME(volatile atomic<T>* p, nd<T> x, memory_order) { \
  T o; __atomic_load(const_cast<T*>(&p->v), &o, __ATOMIC_RELAXED); for (;;) { T n = EXPR; if (__atomic_compare_exchange(const_cast<T*>(&p->v), &o, &n, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return o; } }
MSL_AT(atomic_fetch_add_explicit, o + x) MSL_AT(atomic_fetch_sub_explicit, o - x) MSL_AT(atomic_fetch_min_explicit, o < x ? o : x) MSL_AT(atomic_fetch_max_explicit, o < x ? x : o)
MSL_AT(atomic_fetch_and_explicit, o & x) MSL_AT(atomic_fetch_or_explicit, o | x) MSL_AT(atomic_fetch_xor_explicit, o ^ x)

}  // namespace metal
