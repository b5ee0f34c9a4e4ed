// Barriers and simdgroup functions. Each lane publishes its operand in its simdgroup's slots and waits; the last lane
// to arrive computes all results.
#pragma once
#include "msl_math.h"

// The source position of the caller, told as a default argument.
#define MSL_SITE uint64_t site = ((uint64_t)__builtin_LINE() << 12) | (__builtin_COLUMN() & 0xfff)

namespace msl {
constexpr uint32_t ALL_LANES = ~0u;
template <class T>
MSL_AI T& slot(Simdgroup* g, int lane) {
  static_assert(sizeof(T) <= sizeof g->slot[0], "operand of a simd operation is over 32 bytes");
  return *(T*)g->slot[lane];
}
template <class T>
MSL_AI T& result(Simdgroup* g) {
  return *(T*)g->result;
}

// Reduction as a butterfly over 32 lanes; inactive lanes hold the identity.
template <class T, class Op>
MSL_AI void reduce(Simdgroup* g, uint32_t lanes, T identity, Op op) {
  T a[32];
  if (lanes == ALL_LANES) {
    for (int i = 0; i < 32; i++) a[i] = slot<T>(g, i);
  } else {
    for (int i = 0; i < 32; i++) a[i] = lanes >> i & 1 ? slot<T>(g, i) : identity;
  }
  for (int o = 16; o; o >>= 1)
    for (int i = 0; i < o; i++) a[i] = op(a[i], a[i + o]);
  result<T>(g) = a[0];
}
template <class T>
MSL_AI T any_lane(Simdgroup* g, uint32_t lanes) {
  return slot<T>(g, __builtin_ctz(lanes));
}
template <class T>
T one() {
  T v{};
  return (T)(v + (typename vt<T>::e)1);
}
#define MSL_REDUCE(NAME, IDENTITY, EXPR)                               \
  template <class T>                                                   \
  void NAME(Simdgroup* g, uint32_t lanes) {                            \
    reduce<T>(g, lanes, IDENTITY, [](T a, T b) { return (T)(EXPR); }); \
  }
MSL_REDUCE(reduce_sum, T(0), a + b)
MSL_REDUCE(reduce_product, one<T>(), a* b)
MSL_REDUCE(reduce_max, any_lane<T>(g, lanes), metal::max(a, b))
MSL_REDUCE(reduce_min, any_lane<T>(g, lanes), metal::min(a, b))
MSL_REDUCE(reduce_and, (T)~T(0), a& b)
MSL_REDUCE(reduce_or, T(0), a | b)
MSL_REDUCE(reduce_xor, T(0), a ^ b)
#undef MSL_REDUCE

template <class T>
void prefix_inclusive_sum(Simdgroup* g, uint32_t lanes) {
  T s = T(0);
  for (uint32_t m = lanes; m; m &= m - 1) s = (T)(s + slot<T>(g, __builtin_ctz(m))), slot<T>(g, __builtin_ctz(m)) = s;
}
template <class T>
void prefix_exclusive_sum(Simdgroup* g, uint32_t lanes) {
  T s = T(0);
  for (uint32_t m = lanes; m; m &= m - 1) {
    T& v = slot<T>(g, __builtin_ctz(m));
    T next = (T)(s + v);
    v = s, s = next;
  }
}
template <class T>
void broadcast_first(Simdgroup* g, uint32_t lanes) {
  result<T>(g) = any_lane<T>(g, lanes);
}
// Reading a lane that is not active is undefined in MSL; it gives 0xFF bytes (NaN), so that a use of it shows.
template <class T>
void shuffle(Simdgroup* g, uint32_t lanes) {
  T r[32];
  if (lanes == ALL_LANES) {
    for (int i = 0; i < 32; i++) r[i] = slot<T>(g, g->key[i] & 31);
    for (int i = 0; i < 32; i++)
      if (g->key[i] > 31) memset(&r[i], 0xFF, sizeof(T));
  } else {
    for (int i = 0; i < 32; i++) {
      uint32_t from = g->key[i];
      if (!(lanes >> i & 1)) continue;
      if (from < 32 && (lanes >> from & 1))
        r[i] = slot<T>(g, from);
      else
        memset(&r[i], 0xFF, sizeof(T));
    }
  }
  for (uint32_t m = lanes; m; m &= m - 1) slot<T>(g, __builtin_ctz(m)) = r[__builtin_ctz(m)];
}
struct Ballot {
  uint32_t votes, active;
};
inline void ballot(Simdgroup* g, uint32_t lanes) {
  uint32_t votes = 0;
  for (uint32_t m = lanes; m; m &= m - 1)
    if (g->key[__builtin_ctz(m)]) votes |= m & -m;
  result<Ballot>(g) = {votes, lanes};
}

template <class T>
MSL_NOINSTR T reduced(T v, Resolve fn, uint64_t site) {
  Simdgroup* g = my_simdgroup();
  slot<T>(g, my_lane()) = v;
  simd_wait(site, fn);
  return result<T>(g);
}
template <class T>
MSL_NOINSTR T exchanged(T v, uint32_t from, Resolve fn, uint64_t site) {
  Simdgroup* g = my_simdgroup();
  unsigned lane = my_lane();
  slot<T>(g, lane) = v;
  g->key[lane] = from;
  simd_wait(site, fn);
  return slot<T>(g, lane);
}
MSL_NOINSTR Ballot voted(bool vote, uint64_t site) {
  Simdgroup* g = my_simdgroup();
  g->key[my_lane()] = vote;
  simd_wait(site, ballot);
  return result<Ballot>(g);
}
}  // namespace msl

namespace metal {
enum class mem_flags {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8
};
MSL_AI constexpr mem_flags operator|(mem_flags a, mem_flags b) { return (mem_flags)((int)a | (int)b); }
MSL_AI void threadgroup_barrier(mem_flags f, MSL_SITE) { msl::barrier_wait(site, (int)f); }
MSL_AI void simdgroup_barrier(mem_flags f, MSL_SITE) { msl::simd_barrier_wait(site, (int)f); }

#define MSL_REDUCTION(NAME, FN)                  \
  template <class T>                             \
  MSL_AI T NAME(T v, MSL_SITE) {                 \
    return msl::reduced<T>(v, msl::FN<T>, site); \
  }
MSL_REDUCTION(simd_sum, reduce_sum)
MSL_REDUCTION(simd_product, reduce_product)
MSL_REDUCTION(simd_max, reduce_max)
MSL_REDUCTION(simd_min, reduce_min)
MSL_REDUCTION(simd_and, reduce_and)
MSL_REDUCTION(simd_or, reduce_or)
MSL_REDUCTION(simd_xor, reduce_xor)
MSL_REDUCTION(simd_broadcast_first, broadcast_first)
#undef MSL_REDUCTION
template <class T>
MSL_AI T simd_prefix_inclusive_sum(T v, MSL_SITE) {
  return msl::exchanged<T>(v, 0, msl::prefix_inclusive_sum<T>, site);
}
template <class T>
MSL_AI T simd_prefix_exclusive_sum(T v, MSL_SITE) {
  return msl::exchanged<T>(v, 0, msl::prefix_exclusive_sum<T>, site);
}

// FROM: the lane to read, with `lane` this one and `n` the argument.
#define MSL_SHUFFLE(NAME, FROM)                               \
  template <class T>                                          \
  MSL_AI T NAME(T v, ushort n, MSL_SITE) {                    \
    unsigned lane = msl::my_lane();                           \
    (void)lane;                                               \
    return msl::exchanged<T>(v, FROM, msl::shuffle<T>, site); \
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
MSL_AI T simd_shuffle_and_fill_down(T v, T fill, ushort n, MSL_SITE) {
  unsigned lane = msl::my_lane();
  T down = msl::exchanged<T>(v, lane + n < 32 ? lane + n : lane, msl::shuffle<T>, site);
  T filled = msl::exchanged<T>(fill, (lane + n) & 31, msl::shuffle<T>, site);
  return lane + n < 32 ? down : filled;
}
template <class T>
MSL_AI T simd_shuffle_and_fill_up(T v, T fill, ushort n, MSL_SITE) {
  unsigned lane = msl::my_lane();
  T up = msl::exchanged<T>(v, lane >= n ? lane - n : lane, msl::shuffle<T>, site);
  T filled = msl::exchanged<T>(fill, (lane - n) & 31, msl::shuffle<T>, site);
  return lane >= n ? up : filled;
}
template <class T>
MSL_AI T quad_sum(T v, MSL_SITE) {
  v = v + msl::exchanged<T>(v, msl::my_lane() ^ 1, msl::shuffle<T>, site);
  return v + msl::exchanged<T>(v, msl::my_lane() ^ 2, msl::shuffle<T>, site);
}
template <class T>
MSL_AI T quad_max(T v, MSL_SITE) {
  v = max(v, msl::exchanged<T>(v, msl::my_lane() ^ 1, msl::shuffle<T>, site));
  return max(v, msl::exchanged<T>(v, msl::my_lane() ^ 2, msl::shuffle<T>, site));
}
template <class T>
MSL_AI T quad_min(T v, MSL_SITE) {
  v = min(v, msl::exchanged<T>(v, msl::my_lane() ^ 1, msl::shuffle<T>, site));
  return min(v, msl::exchanged<T>(v, msl::my_lane() ^ 2, msl::shuffle<T>, site));
}

struct simd_vote {
  ulong m;
  bool all() const { return (uint)m == 0xffffffffu; }
  bool any() const { return m != 0; }
  explicit operator ulong() const { return m; }
};
MSL_AI simd_vote simd_ballot(bool b, MSL_SITE) { return simd_vote{msl::voted(b, site).votes}; }
MSL_AI simd_vote simd_active_threads_mask(MSL_SITE) { return simd_vote{msl::voted(true, site).active}; }
MSL_AI bool simd_any(bool b, MSL_SITE) { return msl::voted(b, site).votes != 0; }
MSL_AI bool simd_all(bool b, MSL_SITE) {
  msl::Ballot v = msl::voted(b, site);
  return v.votes == v.active;
}
MSL_AI bool simd_is_first(MSL_SITE) { return (unsigned)__builtin_ctz(msl::voted(true, site).active) == msl::my_lane(); }
}  // namespace metal
