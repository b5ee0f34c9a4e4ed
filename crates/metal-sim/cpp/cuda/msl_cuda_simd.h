// Barriers, simdgroup functions and atomics on warps. All lanes of a simdgroup must be there: unlike in MSL an
// operation in divergent code is undefined.
#pragma once
#include "msl_cuda_math.h"

namespace metal {
enum class mem_flags {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8
};
inline constexpr mem_flags operator|(mem_flags a, mem_flags b) { return (mem_flags)((int)a | (int)b); }
inline void threadgroup_barrier(mem_flags) { __syncthreads(); }
inline void simdgroup_barrier(mem_flags) { __syncwarp(); }
}  // namespace metal

namespace msl {
constexpr unsigned ALL_LANES = 0xffffffffu;
inline unsigned lane() {
  unsigned l;
  asm("mov.u32 %0, %%laneid;" : "=r"(l));
  return l;
}
// The value of lane `from`, whatever its type.
template <class T>
inline T shuffle(const T& v, unsigned from) {
  unsigned words[(sizeof(T) + 3) / 4] = {};
  memcpy(words, &v, sizeof(T));
  for (unsigned i = 0; i < (sizeof(T) + 3) / 4; ++i) words[i] = __shfl_sync(ALL_LANES, words[i], (int)from, 32);
  T r;
  memcpy(&r, words, sizeof(T));
  return r;
}
template <class T>
inline T shuffle_xor(const T& v, unsigned mask) {
  return shuffle(v, lane() ^ mask);
}
}  // namespace msl

namespace metal {
// A butterfly: every lane has the same result.
#define MSL_REDUCTION(NAME, EXPR)           \
  template <class T>                        \
  inline T NAME(T a) {                      \
    for (unsigned o = 16; o > 0; o >>= 1) { \
      const T b = msl::shuffle_xor(a, o);   \
      a = T(EXPR);                          \
    }                                       \
    return a;                               \
  }
MSL_REDUCTION(simd_sum, a + b)
MSL_REDUCTION(simd_product, a* b)
MSL_REDUCTION(simd_max, max(a, b))
MSL_REDUCTION(simd_min, min(a, b))
MSL_REDUCTION(simd_and, a& b)
MSL_REDUCTION(simd_or, a | b)
MSL_REDUCTION(simd_xor, a ^ b)
#undef MSL_REDUCTION
#define MSL_QUAD(NAME, EXPR)               \
  template <class T>                       \
  inline T NAME(T a) {                     \
    for (unsigned o = 1; o < 4; o <<= 1) { \
      const T b = msl::shuffle_xor(a, o);  \
      a = T(EXPR);                         \
    }                                      \
    return a;                              \
  }
MSL_QUAD(quad_sum, a + b)
MSL_QUAD(quad_max, max(a, b))
MSL_QUAD(quad_min, min(a, b))
#undef MSL_QUAD

// FROM: the lane to read, with `lane` this one and `n` the argument.
#define MSL_SHUFFLE(NAME, FROM)                   \
  template <class T>                              \
  inline T NAME(const T& v, ushort n) {           \
    [[maybe_unused]] unsigned lane = msl::lane(); \
    return msl::shuffle(v, FROM);                 \
  }
MSL_SHUFFLE(simd_shuffle, n)
MSL_SHUFFLE(simd_broadcast, n)
MSL_SHUFFLE(simd_shuffle_xor, lane ^ n)
MSL_SHUFFLE(simd_shuffle_down, lane + n < 32 ? lane + n : lane)
MSL_SHUFFLE(simd_shuffle_up, lane >= n ? lane - n : lane)
MSL_SHUFFLE(simd_shuffle_rotate_down, (lane + n) & 31)
MSL_SHUFFLE(simd_shuffle_rotate_up, (lane - n) & 31)
MSL_SHUFFLE(quad_shuffle, (lane & ~3u) | (n & 3))
MSL_SHUFFLE(quad_broadcast, (lane & ~3u) | (n & 3))
MSL_SHUFFLE(quad_shuffle_xor, lane ^ (n & 3))
#undef MSL_SHUFFLE
template <class T>
inline T simd_shuffle_and_fill_down(const T& v, const T& fill, ushort n) {
  const T down = simd_shuffle_down(v, n), filled = simd_shuffle_rotate_down(fill, n);
  return msl::lane() + n < 32 ? down : filled;
}
template <class T>
inline T simd_shuffle_and_fill_up(const T& v, const T& fill, ushort n) {
  const T up = simd_shuffle_up(v, n), filled = simd_shuffle_rotate_up(fill, n);
  return msl::lane() >= n ? up : filled;
}
template <class T>
inline T simd_broadcast_first(const T& v) {
  return msl::shuffle(v, 0);
}
template <class T>
inline T simd_prefix_inclusive_sum(T v) {
  for (ushort o = 1; o < 32; o <<= 1) {
    const T before = simd_shuffle_up(v, o);
    if (msl::lane() >= o) v = T(v + before);
  }
  return v;
}
template <class T>
inline T simd_prefix_exclusive_sum(T v) {
  const T before = simd_shuffle_up(simd_prefix_inclusive_sum(v), 1);
  return msl::lane() == 0 ? T(0) : before;
}

struct simd_vote {
  ulong m;
  bool all() const { return (uint)m == msl::ALL_LANES; }
  bool any() const { return m != 0; }
  explicit operator ulong() const { return m; }
};
inline simd_vote simd_ballot(bool b) { return simd_vote{__ballot_sync(msl::ALL_LANES, b)}; }
inline simd_vote simd_active_threads_mask() { return simd_vote{msl::ALL_LANES}; }
inline bool simd_any(bool b) { return simd_ballot(b).any(); }
inline bool simd_all(bool b) { return simd_ballot(b).all(); }
inline bool simd_is_first() { return msl::lane() == 0; }

// Atomics, all relaxed.
enum memory_order { memory_order_relaxed = 0 };
template <class T>
struct atomic {
  T v;
};
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<float> atomic_float;
}  // namespace metal

namespace msl {
template <class T>
struct identity {
  typedef T type;
};
// A parameter that takes no part in deduction.
template <class T>
using same = typename identity<T>::type;
template <class T>
inline T* plain(const volatile metal::atomic<T>* p) {
  return const_cast<T*>(&p->v);
}
template <class T, class Op>
inline T update(volatile metal::atomic<T>* p, Op op) {
  static_assert(sizeof(T) == 4, "atomics have 32 bits");
  unsigned* word = (unsigned*)plain(p);
  unsigned old = *(volatile unsigned*)word;
  for (;;) {
    const unsigned next = metal::as_type<unsigned>(op(metal::as_type<T>(old)));
    const unsigned found = atomicCAS(word, old, next);
    if (found == old) return metal::as_type<T>(old);
    old = found;
  }
}
}  // namespace msl

namespace metal {
template <class T>
inline T atomic_load_explicit(const volatile atomic<T>* p, memory_order) {
  return *(const volatile T*)msl::plain(p);
}
template <class T>
inline void atomic_store_explicit(volatile atomic<T>* p, msl::same<T> x, memory_order) {
  *(volatile T*)msl::plain(p) = x;
}
template <class T>
inline T atomic_exchange_explicit(volatile atomic<T>* p, msl::same<T> x, memory_order) {
  return msl::update(p, [x](T) { return x; });
}
template <class T>
inline bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* p, T* expected, msl::same<T> desired,
                                                  memory_order, memory_order) {
  const unsigned wanted = as_type<unsigned>(*expected);
  const unsigned found = atomicCAS((unsigned*)msl::plain(p), wanted, as_type<unsigned>(T(desired)));
  *expected = as_type<T>(found);
  return found == wanted;
}
// Sums have an instruction of their own: they are what many threads do to one word.
inline uint atomic_fetch_add_explicit(volatile atomic_uint* p, uint x, memory_order) {
  return atomicAdd(msl::plain(p), x);
}
inline int atomic_fetch_add_explicit(volatile atomic_int* p, int x, memory_order) {
  return atomicAdd(msl::plain(p), x);
}
inline float atomic_fetch_add_explicit(volatile atomic_float* p, float x, memory_order) {
  return atomicAdd(msl::plain(p), x);
}
#define MSL_FETCH(NAME, EXPR)                                          \
  template <class T>                                                   \
  inline T NAME(volatile atomic<T>* p, msl::same<T> x, memory_order) { \
    return msl::update(p, [x](T old) { return (T)(EXPR); });           \
  }
MSL_FETCH(atomic_fetch_sub_explicit, old - x)
MSL_FETCH(atomic_fetch_min_explicit, old < x ? old : x)
MSL_FETCH(atomic_fetch_max_explicit, old < x ? x : old)
MSL_FETCH(atomic_fetch_and_explicit, old& x)
MSL_FETCH(atomic_fetch_or_explicit, old | x)
MSL_FETCH(atomic_fetch_xor_explicit, old ^ x)
#undef MSL_FETCH
}  // namespace metal
