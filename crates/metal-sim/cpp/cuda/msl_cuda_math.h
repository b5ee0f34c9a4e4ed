// MSL constants and math functions on CUDA's. Outside of `fast` all are as precise as CUDA has them.
#pragma once
#include "msl_cuda_types.h"

#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_PI_4_F 0.78539816339744830962f
#define M_1_PI_F 0.31830988618379067154f
#define M_2_PI_F 0.63661977236758134308f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.70710678118654752440f
#define M_E_F 2.71828182845904523536f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LOG10E_F 0.43429448190325182765f
#define M_LN2_F 0.69314718055994530942f
#define M_LN10_F 2.30258509299404568402f
#define MAXFLOAT FLT_MAX
#define HALF_MAX (metal::half(65504.0f))
#define MAXHALF HALF_MAX
#define HALF_EPSILON (metal::half(9.765625e-04f))
#undef INFINITY
#define INFINITY (metal::as_type<float>(0x7f800000u))
#undef NAN
#define NAN (metal::as_type<float>(0x7fc00000u))

namespace metal {
// One or two arguments, computed in float, for float, half, bfloat and their vectors.
#define MSL_UNARY(NAME, EXPR)                      \
  inline float NAME(float x) { return EXPR; }      \
  inline half NAME(half h) {                       \
    float x = (float)h;                            \
    return half(EXPR);                             \
  }                                                \
  inline bfloat NAME(bfloat h) {                   \
    float x = (float)h;                            \
    return bfloat(EXPR);                           \
  }                                                \
  template <class T, int N>                        \
  inline vec<T, N> NAME(const vec<T, N>& v) {      \
    vec<T, N> r;                                   \
    for (int i = 0; i < N; ++i) r[i] = NAME(v[i]); \
    return r;                                      \
  }
#define MSL_BINARY(NAME, EXPR)                                    \
  inline float NAME(float x, float y) { return EXPR; }            \
  inline half NAME(half a, half b) {                              \
    float x = (float)a, y = (float)b;                             \
    return half(EXPR);                                            \
  }                                                               \
  inline bfloat NAME(bfloat a, bfloat b) {                        \
    float x = (float)a, y = (float)b;                             \
    return bfloat(EXPR);                                          \
  }                                                               \
  template <class T, int N>                                       \
  inline vec<T, N> NAME(const vec<T, N>& a, const vec<T, N>& b) { \
    vec<T, N> r;                                                  \
    for (int i = 0; i < N; ++i) r[i] = NAME(a[i], b[i]);          \
    return r;                                                     \
  }
#define MSL_SHARED_MATH                                             \
  MSL_UNARY(tan, ::tanf(x))                                         \
  MSL_UNARY(sinh, ::sinhf(x))                                       \
  MSL_UNARY(cosh, ::coshf(x))                                       \
  MSL_UNARY(tanh, ::tanhf(x))                                       \
  MSL_UNARY(asin, ::asinf(x))                                       \
  MSL_UNARY(acos, ::acosf(x))                                       \
  MSL_UNARY(atan, ::atanf(x))                                       \
  MSL_UNARY(asinh, ::asinhf(x))                                     \
  MSL_UNARY(acosh, ::acoshf(x))                                     \
  MSL_UNARY(atanh, ::atanhf(x))                                     \
  MSL_UNARY(sqrt, ::sqrtf(x))                                       \
  MSL_UNARY(rsqrt, ::rsqrtf(x))                                     \
  MSL_UNARY(floor, ::floorf(x))                                     \
  MSL_UNARY(ceil, ::ceilf(x))                                       \
  MSL_UNARY(trunc, ::truncf(x))                                     \
  MSL_UNARY(rint, ::rintf(x))                                       \
  MSL_UNARY(round, ::roundf(x))                                     \
  MSL_UNARY(fabs, ::fabsf(x))                                       \
  MSL_UNARY(fract, ::fminf(x - ::floorf(x), 0x1.fffffep-1f))        \
  MSL_UNARY(sign, x > 0 ? 1.0f : x < 0 ? -1.0f : x == 0 ? x : 0.0f) \
  MSL_UNARY(saturate, ::fminf(::fmaxf(x, 0.0f), 1.0f))              \
  MSL_BINARY(fmin, ::fminf(x, y))                                   \
  MSL_BINARY(fmax, ::fmaxf(x, y))                                   \
  MSL_BINARY(fmod, ::fmodf(x, y))                                   \
  MSL_BINARY(fdim, ::fdimf(x, y))                                   \
  MSL_BINARY(atan2, ::atan2f(x, y))                                 \
  MSL_BINARY(copysign, ::copysignf(x, y))                           \
  MSL_BINARY(step, y < x ? 0.0f : 1.0f)
#define MSL_PRECISE_MATH        \
  MSL_SHARED_MATH               \
  MSL_UNARY(exp, ::expf(x))     \
  MSL_UNARY(exp2, ::exp2f(x))   \
  MSL_UNARY(exp10, ::exp10f(x)) \
  MSL_UNARY(log, ::logf(x))     \
  MSL_UNARY(log2, ::log2f(x))   \
  MSL_UNARY(log10, ::log10f(x)) \
  MSL_UNARY(sin, ::sinf(x))     \
  MSL_UNARY(cos, ::cosf(x))     \
  MSL_UNARY(sinpi, ::sinpif(x)) \
  MSL_UNARY(cospi, ::cospif(x)) \
  MSL_BINARY(pow, ::powf(x, y)) \
  MSL_BINARY(powr, ::powf(x, y))
#define MSL_FAST_MATH             \
  MSL_SHARED_MATH                 \
  MSL_UNARY(exp, ::__expf(x))     \
  MSL_UNARY(exp2, ::exp2f(x))     \
  MSL_UNARY(exp10, ::__exp10f(x)) \
  MSL_UNARY(log, ::__logf(x))     \
  MSL_UNARY(log2, ::__log2f(x))   \
  MSL_UNARY(log10, ::__log10f(x)) \
  MSL_UNARY(sin, ::__sinf(x))     \
  MSL_UNARY(cos, ::__cosf(x))     \
  MSL_UNARY(sinpi, ::sinpif(x))   \
  MSL_UNARY(cospi, ::cospif(x))   \
  MSL_BINARY(pow, ::__powf(x, y)) \
  MSL_BINARY(powr, ::__powf(x, y))
MSL_PRECISE_MATH

inline float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
inline half fma(half a, half b, half c) {
  half r;
  asm("fma.rn.f16 %0, %1, %2, %3;" : "=h"(r.bits) : "h"(a.bits), "h"(b.bits), "h"(c.bits));
  return r;
}
template <class T, int N>
inline vec<T, N> fma(const vec<T, N>& a, const vec<T, N>& b, const vec<T, N>& c) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = fma(a[i], b[i], c[i]);
  return r;
}
inline float ldexp(float x, int e) { return ::ldexpf(x, e); }
inline half ldexp(half x, int e) { return half(::ldexpf((float)x, e)); }
inline bool isnan(float x) { return x != x; }
inline bool isinf(float x) { return (as_type<uint>(x) & 0x7fffffffu) == 0x7f800000u; }
inline bool isfinite(float x) { return (as_type<uint>(x) & 0x7f800000u) != 0x7f800000u; }
inline bool isnan(half x) { return isnan((float)x); }
inline bool isinf(half x) { return isinf((float)x); }
inline bool isfinite(half x) { return isfinite((float)x); }
inline bool signbit(float x) { return as_type<int>(x) < 0; }

// Order, for every number type and its vectors; mixed types are ambiguous, as they are for Apple's compiler.
template <class T, class = enable_if_t<is_number<T>::value>>
inline T min(T a, T b) {
  return b < a ? b : a;
}
template <class T, class = enable_if_t<is_number<T>::value>>
inline T max(T a, T b) {
  return a < b ? b : a;
}
template <class T, class = enable_if_t<is_number<T>::value>>
inline T clamp(T x, T a, T b) {
  return min(max(x, a), b);
}
#define MSL_VECTOR_ORDER(NAME)                                    \
  template <class T, int N>                                       \
  inline vec<T, N> NAME(const vec<T, N>& a, const vec<T, N>& b) { \
    vec<T, N> r;                                                  \
    for (int i = 0; i < N; ++i) r[i] = NAME(a[i], b[i]);          \
    return r;                                                     \
  }                                                               \
  template <class T, int N>                                       \
  inline vec<T, N> NAME(const vec<T, N>& a, T b) {                \
    return NAME(a, vec<T, N>(b));                                 \
  }
MSL_VECTOR_ORDER(min)
MSL_VECTOR_ORDER(max)
#undef MSL_VECTOR_ORDER
template <class T, int N>
inline vec<T, N> clamp(const vec<T, N>& x, const vec<T, N>& a, const vec<T, N>& b) {
  return min(max(x, a), b);
}
template <class T, int N>
inline vec<T, N> clamp(const vec<T, N>& x, T a, T b) {
  return min(max(x, a), b);
}
template <class T, class = enable_if_t<is_number<T>::value>>
inline T abs(T x) {
  return x < T(0) ? T(-x) : x;
}
template <class T, int N>
inline vec<T, N> abs(const vec<T, N>& v) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = abs(v[i]);
  return r;
}

template <class T>
inline T mix(T a, T b, T t) {
  return T(a + (b - a) * t);
}
template <class T, int N>
inline vec<T, N> mix(const vec<T, N>& a, const vec<T, N>& b, T t) {
  return a + (b - a) * t;
}
template <class T>
inline T smoothstep(T a, T b, T x) {
  T t = clamp(T((x - a) / (b - a)), T(0), T(1));
  return T(t * t * (T(3) - T(2) * t));
}
template <class T, int N>
inline T dot(const vec<T, N>& a, const vec<T, N>& b) {
  T s = T(a[0] * b[0]);
  for (int i = 1; i < N; ++i) s = T(s + T(a[i] * b[i]));
  return s;
}
template <class T, int N>
inline T length_squared(const vec<T, N>& a) {
  return dot(a, a);
}
template <class T, int N>
inline T length(const vec<T, N>& a) {
  return sqrt(dot(a, a));
}
template <class T, int N>
inline T distance(const vec<T, N>& a, const vec<T, N>& b) {
  return length(a - b);
}
template <class T, int N>
inline vec<T, N> normalize(const vec<T, N>& a) {
  return a * rsqrt(dot(a, a));
}

inline bool any(bool b) { return b; }
inline bool all(bool b) { return b; }
template <int N>
inline bool any(const vec<bool, N>& c) {
  bool r = false;
  for (int i = 0; i < N; ++i) r |= c[i];
  return r;
}
template <int N>
inline bool all(const vec<bool, N>& c) {
  bool r = true;
  for (int i = 0; i < N; ++i) r &= c[i];
  return r;
}
template <class T, class = enable_if_t<is_number<T>::value>>
inline T select(T a, T b, bool c) {
  return c ? b : a;
}
template <class T, int N>
inline vec<T, N> select(const vec<T, N>& a, const vec<T, N>& b, const vec<bool, N>& c) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = c[i] ? b[i] : a[i];
  return r;
}

inline uint popcount(uint x) { return (uint)::__popc((int)x); }
inline ulong popcount(ulong x) { return (ulong)::__popcll((long long)x); }
inline uint clz(uint x) { return (uint)::__clz((int)x); }
inline uint ctz(uint x) { return x ? (uint)::__ffs((int)x) - 1 : 32; }
inline uint reverse_bits(uint x) { return ::__brev(x); }
inline uint low_bits(uint bits) { return bits >= 32 ? ~0u : (1u << bits) - 1; }
inline uint extract_bits(uint x, uint offset, uint bits) { return bits == 0 ? 0 : x >> offset & low_bits(bits); }
inline int extract_bits(int x, uint offset, uint bits) {
  return bits == 0 ? 0 : (int)((uint)x << (32 - offset - bits)) >> (32 - bits);
}
inline uint insert_bits(uint base, uint insert, uint offset, uint bits) {
  uint mask = bits == 0 ? 0 : low_bits(bits) << offset;
  return (base & ~mask) | (insert << offset & mask);
}
inline uint rotate(uint x, uint n) {
  n &= 31;
  return n ? (x << n) | (x >> (32 - n)) : x;
}
inline uint mulhi(uint a, uint b) { return ::__umulhi(a, b); }
inline int mulhi(int a, int b) { return ::__mulhi(a, b); }
inline int mad24(int a, int b, int c) { return a * b + c; }
inline uint mad24(uint a, uint b, uint c) { return a * b + c; }
inline int mul24(int a, int b) { return a * b; }
inline uint mul24(uint a, uint b) { return a * b; }

namespace fast {
MSL_FAST_MATH
using metal::abs;
using metal::clamp;
using metal::dot;
using metal::fma;
using metal::length;
using metal::max;
using metal::min;
using metal::mix;
using metal::normalize;
}  // namespace fast
namespace precise {
MSL_PRECISE_MATH
using metal::abs;
using metal::clamp;
using metal::dot;
using metal::fma;
using metal::length;
using metal::max;
using metal::min;
using metal::mix;
using metal::normalize;
}  // namespace precise
#undef MSL_SHARED_MATH
#undef MSL_PRECISE_MATH
#undef MSL_FAST_MATH
#undef MSL_UNARY
#undef MSL_BINARY
}  // namespace metal
