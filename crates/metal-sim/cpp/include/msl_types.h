// MSL scalar and vector types on clang's extended vectors.
#pragma once
#include <cfloat>
#include <climits>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "msl_rt.h"

#pragma clang diagnostic ignored "-Wduplicate-decl-specifier"
#pragma clang diagnostic ignored "-Walign-mismatch"

using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;
using ulong = unsigned long;
using half = _Float16;
using bfloat = __bf16;

// Three packed components are no vector: they take the place of three.
#define MSL_VECTORS(T)                                                              \
  typedef T T##2 __attribute__((ext_vector_type(2)));                               \
  typedef T T##3 __attribute__((ext_vector_type(3)));                               \
  typedef T T##4 __attribute__((ext_vector_type(4)));                               \
  typedef T packed_##T##2 __attribute__((ext_vector_type(2), aligned(alignof(T)))); \
  typedef T packed_##T##4 __attribute__((ext_vector_type(4), aligned(alignof(T)))); \
  struct packed_##T##3 {                                                            \
    T x, y, z;                                                                      \
    packed_##T##3() = default;                                                      \
    packed_##T##3(T##3 v) : x(v.x), y(v.y), z(v.z) {}                               \
    packed_##T##3(T a, T b, T c) : x(a), y(b), z(c) {}                              \
    operator T##3() const {                                                         \
      T##3 r;                                                                       \
      r.x = x;                                                                      \
      r.y = y;                                                                      \
      r.z = z;                                                                      \
      return r;                                                                     \
    }                                                                               \
    T& operator[](int i) { return (&x)[i]; }                                        \
    const T& operator[](int i) const { return (&x)[i]; }                            \
  };
#define MSL_INTEGERS(M) M(char) M(uchar) M(short) M(ushort) M(int) M(uint) M(long) M(ulong)
#define MSL_NUMBERS(M) MSL_INTEGERS(M) M(float) M(half) M(bfloat)
MSL_NUMBERS(MSL_VECTORS)
#undef MSL_VECTORS
// What comparisons of 32-bit vectors give.
typedef int bool2 __attribute__((ext_vector_type(2)));
typedef int bool3 __attribute__((ext_vector_type(3)));
typedef int bool4 __attribute__((ext_vector_type(4)));

namespace msl {
template <class T, int N>
using ev = T __attribute__((ext_vector_type(N)));

// Number and type of a vector's components; a scalar is its own.
template <class T>
struct vt {
  static constexpr int n = 1;
  using e = T;
};
#define MSL_TRAITS(T)           \
  template <>                   \
  struct vt<ev<T, 2>> {         \
    static constexpr int n = 2; \
    using e = T;                \
  };                            \
  template <>                   \
  struct vt<ev<T, 3>> {         \
    static constexpr int n = 3; \
    using e = T;                \
  };                            \
  template <>                   \
  struct vt<ev<T, 4>> {         \
    static constexpr int n = 4; \
    using e = T;                \
  };
MSL_NUMBERS(MSL_TRAITS)
#undef MSL_TRAITS

// A packed vector of three is the only class among the arguments of a constructor.
template <class A>
constexpr int components() {
  if constexpr (std::is_class_v<A>)
    return 3;
  else
    return vt<A>::n;
}
template <class V, class A>
MSL_AI int fill(V& v, int i, const A& a) {
  using E = typename vt<V>::e;
  if constexpr (components<A>() == 1) {
    v[i] = (E)a;
  } else {
    for (int k = 0; k < components<A>(); k++) v[i + k] = (E)a[k];
  }
  return i + components<A>();
}
// A vector's constructor: one number for all components, or as many as there are.
template <class V, class... A>
MSL_AI V mk(A... a) {
  if constexpr (sizeof...(A) == 1 && ((components<A>() == 1) && ...)) {
    V v;
    for (int k = 0; k < vt<V>::n; k++) v[k] = ((typename vt<V>::e)a, ...);
    return v;
  } else {
    static_assert((components<A>() + ... + 0) % vt<V>::n == 0 && (components<A>() + ... + 0) <= vt<V>::n,
                  "vector constructor: wrong number of components");
    V v{};
    int i = 0;
    ((i = fill(v, i, a)), ...);
    return v;
  }
}
}  // namespace msl

// `float4(...)` as a call is a constructor; `float4` alone stays the type.
#define char2(...) ::msl::mk<char2>(__VA_ARGS__)
#define char3(...) ::msl::mk<char3>(__VA_ARGS__)
#define char4(...) ::msl::mk<char4>(__VA_ARGS__)
#define uchar2(...) ::msl::mk<uchar2>(__VA_ARGS__)
#define uchar3(...) ::msl::mk<uchar3>(__VA_ARGS__)
#define uchar4(...) ::msl::mk<uchar4>(__VA_ARGS__)
#define short2(...) ::msl::mk<short2>(__VA_ARGS__)
#define short3(...) ::msl::mk<short3>(__VA_ARGS__)
#define short4(...) ::msl::mk<short4>(__VA_ARGS__)
#define ushort2(...) ::msl::mk<ushort2>(__VA_ARGS__)
#define ushort3(...) ::msl::mk<ushort3>(__VA_ARGS__)
#define ushort4(...) ::msl::mk<ushort4>(__VA_ARGS__)
#define int2(...) ::msl::mk<int2>(__VA_ARGS__)
#define int3(...) ::msl::mk<int3>(__VA_ARGS__)
#define int4(...) ::msl::mk<int4>(__VA_ARGS__)
#define uint2(...) ::msl::mk<uint2>(__VA_ARGS__)
#define uint3(...) ::msl::mk<uint3>(__VA_ARGS__)
#define uint4(...) ::msl::mk<uint4>(__VA_ARGS__)
#define long2(...) ::msl::mk<long2>(__VA_ARGS__)
#define long3(...) ::msl::mk<long3>(__VA_ARGS__)
#define long4(...) ::msl::mk<long4>(__VA_ARGS__)
#define ulong2(...) ::msl::mk<ulong2>(__VA_ARGS__)
#define ulong3(...) ::msl::mk<ulong3>(__VA_ARGS__)
#define ulong4(...) ::msl::mk<ulong4>(__VA_ARGS__)
#define float2(...) ::msl::mk<float2>(__VA_ARGS__)
#define float3(...) ::msl::mk<float3>(__VA_ARGS__)
#define float4(...) ::msl::mk<float4>(__VA_ARGS__)
#define half2(...) ::msl::mk<half2>(__VA_ARGS__)
#define half3(...) ::msl::mk<half3>(__VA_ARGS__)
#define half4(...) ::msl::mk<half4>(__VA_ARGS__)
#define bfloat2(...) ::msl::mk<bfloat2>(__VA_ARGS__)
#define bfloat3(...) ::msl::mk<bfloat3>(__VA_ARGS__)
#define bfloat4(...) ::msl::mk<bfloat4>(__VA_ARGS__)

namespace metal {
using std::conditional;
using std::conditional_t;
using std::enable_if;
using std::enable_if_t;
using std::is_same;
using std::is_same_v;
template <class T, int N>
using vec = msl::ev<T, N>;

template <class To, class From>
MSL_AI To as_type(From f) {
  static_assert(sizeof(To) == sizeof(From), "as_type: sizes differ");
  return __builtin_bit_cast(To, f);
}

template <class T>
struct numeric_limits : std::numeric_limits<T> {};
template <>
struct numeric_limits<half> {
  static constexpr bool is_specialized = true, is_signed = true, is_integer = false;
  static constexpr int digits = 11, digits10 = 3, max_exponent = 16, min_exponent = -13;
  static constexpr half max() { return (half)65504.0f; }
  static constexpr half lowest() { return (half)-65504.0f; }
  static constexpr half min() { return (half)6.103515625e-05f; }
  static constexpr half epsilon() { return (half)9.765625e-04f; }
  static constexpr half denorm_min() { return (half)5.9604644775390625e-08f; }
  static constexpr half infinity() { return (half)__builtin_inff(); }
  static constexpr half quiet_NaN() { return (half)__builtin_nanf(""); }
};
}  // namespace metal
