// MSL scalar and vector types on clang extended vectors.
#pragma once
#include <cstdint>
#include <cfloat>
#include <climits>
#include <limits>
#include <type_traits>
#include "msl_rt.h"

#pragma clang diagnostic ignored "-Wduplicate-decl-specifier"
#pragma clang diagnostic ignored "-Walign-mismatch"

using uchar = unsigned char; using ushort = unsigned short; using uint = unsigned int; using ulong = unsigned long;
using half = _Float16; using bfloat = __bf16;

#define MSL_VEC(T) \
  typedef T T##2 __attribute__((ext_vector_type(2))); typedef T T##3 __attribute__((ext_vector_type(3))); typedef T T##4 __attribute__((ext_vector_type(4))); \
  typedef T packed_##T##2 __attribute__((ext_vector_type(2), aligned(alignof(T)))); typedef T packed_##T##4 __attribute__((ext_vector_type(4), aligned(alignof(T)))); \
  struct packed_##T##3 { T x, y, z; packed_##T##3() = default; packed_##T##3(T##3 v) : x(v.x), y(v.y), z(v.z) {} packed_##T##3(T a, T b, T c) : x(a), y(b), z(c) {} \
    operator T##3() const { T##3 r; r.x = x; r.y = y; r.z = z; return r; } T& operator[](int i) { return (&x)[i]; } const T& operator[](int i) const { return (&x)[i]; } };
MSL_VEC(char) MSL_VEC(uchar) MSL_VEC(short) MSL_VEC(ushort) MSL_VEC(int) MSL_VEC(uint) MSL_VEC(long) MSL_VEC(ulong)
MSL_VEC(float) MSL_VEC(half) MSL_VEC(bfloat)
#undef MSL_VEC
typedef int bool2 __attribute__((ext_vector_type(2))); typedef int bool3 __attribute__((ext_vector_type(3))); typedef int bool4 __attribute__((ext_vector_type(4)));


namespace msl {
template <class T, class = void> struct vt { static constexpr int n = 1; using e = T; };
template <class T, int N> using ev = T __attribute__((ext_vector_type(N)));
#define MSL_VT(T) template <> struct vt<ev<T, 2>> { static constexpr int n = 2; using e = T; }; template <> struct vt<ev<T, 3>> { static constexpr int n = 3; using e = T; }; \
  template <> struct vt<ev<T, 4>> { static constexpr int n = 4; using e = T; };
MSL_VT(char) MSL_VT(uchar) MSL_VT(short) MSL_VT(ushort) MSL_VT(int) MSL_VT(uint) MSL_VT(long) MSL_VT(ulong) MSL_VT(float) MSL_VT(half) MSL_VT(bfloat)
#undef MSL_VT
template <class T> using rc = std::remove_cv_t<std::remove_reference_t<T>>;
template <class V, class A> MSL_AI int fill(V& v, int i, const A& a) {
  if constexpr (std::is_class_v<A>) { v[i] = a[0]; v[i + 1] = a[1]; v[i + 2] = a[2]; return i + 3; }
  else if constexpr (vt<A>::n == 1) { v[i] = (typename vt<V>::e)a; return i + 1; }
  else { for (int k = 0; k < vt<A>::n; k++) v[i + k] = (typename vt<V>::e)a[k]; return i + vt<A>::n; }
}
template <class A> constexpr int cnt() { if constexpr (std::is_class_v<A>) return 3; else return vt<A>::n; }
template <class V> MSL_AI V mk() { return V{}; }
template <class V, class... A> MSL_AI V mk(A... a) {
  if constexpr (sizeof...(A) == 1 && ((!std::is_class_v<A> && vt<A>::n == 1) && ...)) {
    V v; for (int k = 0; k < vt<V>::n; k++) v[k] = ((typename vt<V>::e)a, ...); return v;
  } else {
    static_assert((cnt<A>() + ...) == vt<V>::n, "vector constructor: wrong number of components");
    V v{}; int i = 0; ((i = fill(v, i, a)), ...); return v;
  }
}
}  // namespace msl

// `float4(...)` as a call is a constructor; `float4` alone stays the type (function-like macros need the parenthesis).
#define MSL_CTOR(V) ::msl::mk<V>
#define char2(...) MSL_CTOR(char2)(__VA_ARGS__)
#define char3(...) MSL_CTOR(char3)(__VA_ARGS__)
#define char4(...) MSL_CTOR(char4)(__VA_ARGS__)
#define uchar2(...) MSL_CTOR(uchar2)(__VA_ARGS__)
#define uchar3(...) MSL_CTOR(uchar3)(__VA_ARGS__)
#define uchar4(...) MSL_CTOR(uchar4)(__VA_ARGS__)
#define short2(...) MSL_CTOR(short2)(__VA_ARGS__)
#define short3(...) MSL_CTOR(short3)(__VA_ARGS__)
#define short4(...) MSL_CTOR(short4)(__VA_ARGS__)
#define ushort2(...) MSL_CTOR(ushort2)(__VA_ARGS__)
#define ushort3(...) MSL_CTOR(ushort3)(__VA_ARGS__)
#define ushort4(...) MSL_CTOR(ushort4)(__VA_ARGS__)
#define int2(...) MSL_CTOR(int2)(__VA_ARGS__)
#define int3(...) MSL_CTOR(int3)(__VA_ARGS__)
#define int4(...) MSL_CTOR(int4)(__VA_ARGS__)
#define uint2(...) MSL_CTOR(uint2)(__VA_ARGS__)
#define uint3(...) MSL_CTOR(uint3)(__VA_ARGS__)
#define uint4(...) MSL_CTOR(uint4)(__VA_ARGS__)
#define long2(...) MSL_CTOR(long2)(__VA_ARGS__)
#define long4(...) MSL_CTOR(long4)(__VA_ARGS__)
#define ulong2(...) MSL_CTOR(ulong2)(__VA_ARGS__)
#define ulong4(...) MSL_CTOR(ulong4)(__VA_ARGS__)
#define float2(...) MSL_CTOR(float2)(__VA_ARGS__)
#define float3(...) MSL_CTOR(float3)(__VA_ARGS__)
#define float4(...) MSL_CTOR(float4)(__VA_ARGS__)
#define half2(...) MSL_CTOR(half2)(__VA_ARGS__)
#define half3(...) MSL_CTOR(half3)(__VA_ARGS__)
#define half4(...) MSL_CTOR(half4)(__VA_ARGS__)
#define bfloat2(...) MSL_CTOR(bfloat2)(__VA_ARGS__)
#define bfloat3(...) MSL_CTOR(bfloat3)(__VA_ARGS__)
#define bfloat4(...) MSL_CTOR(bfloat4)(__VA_ARGS__)

namespace metal {
using ::uchar; using ::ushort; using ::uint; using ::ulong; using ::half; using ::bfloat;
using ::int8_t; using ::uint8_t; using ::int16_t; using ::uint16_t; using ::int32_t; using ::uint32_t; using ::int64_t; using ::uint64_t; using ::size_t; using ::ptrdiff_t;
using ::float2; using ::float3; using ::float4; using ::half2; using ::half3; using ::half4; using ::uint2; using ::uint3; using ::uint4; using ::int2; using ::int3; using ::int4;
using ::uchar2; using ::uchar4; using ::char2; using ::char4; using ::short2; using ::short4; using ::ushort2; using ::ushort4; using ::ulong2;
template <class T> struct numeric_limits : std::numeric_limits<T> {};
template <> struct numeric_limits<half> {
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
template <class T, int N> using vec = msl::ev<T, N>;
using std::is_same_v; using std::is_same; using std::enable_if_t; using std::conditional_t; using std::enable_if; using std::conditional;

template <class To, class From> MSL_AI To as_type(From f) { static_assert(sizeof(To) == sizeof(From), "as_type: sizes differ"); return __builtin_bit_cast(To, f); }
}  // namespace metal
