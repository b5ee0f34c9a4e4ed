// MSL constants and math functions. Functions have an overload for each type, so that mixed types are ambiguous here as
// they are for Apple's compiler.
#pragma once
#include "msl_types.h"

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
#define HALF_MAX ((half)65504.0f)
#define MAXHALF HALF_MAX
#define HALF_EPSILON ((half)9.765625e-04f)
#undef INFINITY
#define INFINITY __builtin_inff()
#undef NAN
#define NAN __builtin_nanf("")

namespace metal {
// One or two arguments, computed in float, for float, half, bfloat and their vectors.
#define MSL_UNARY(NAME, EXPR)                         \
  MSL_AI float NAME(float x) { return EXPR; }         \
  MSL_AI half NAME(half h) {                          \
    float x = (float)h;                               \
    return (half)(EXPR);                              \
  }                                                   \
  MSL_AI bfloat NAME(bfloat h) {                      \
    float x = (float)h;                               \
    return (bfloat)(EXPR);                            \
  }                                                   \
  template <class T, int N>                           \
  MSL_AI msl::ev<T, N> NAME(msl::ev<T, N> v) {        \
    for (int i = 0; i < N; i++) v[i] = NAME((T)v[i]); \
    return v;                                         \
  }
#define MSL_BINARY(NAME, EXPR)                                  \
  MSL_AI float NAME(float x, float y) { return EXPR; }          \
  MSL_AI half NAME(half a, half b) {                            \
    float x = (float)a, y = (float)b;                           \
    return (half)(EXPR);                                        \
  }                                                             \
  MSL_AI bfloat NAME(bfloat a, bfloat b) {                      \
    float x = (float)a, y = (float)b;                           \
    return (bfloat)(EXPR);                                      \
  }                                                             \
  template <class T, int N>                                     \
  MSL_AI msl::ev<T, N> NAME(msl::ev<T, N> a, msl::ev<T, N> b) { \
    for (int i = 0; i < N; i++) a[i] = NAME((T)a[i], (T)b[i]);  \
    return a;                                                   \
  }
#define MSL_MATH                                                             \
  MSL_UNARY(exp, __builtin_expf(x))                                          \
  MSL_UNARY(exp2, __builtin_exp2f(x))                                        \
  MSL_UNARY(exp10, __builtin_powf(10.0f, x))                                 \
  MSL_UNARY(log, __builtin_logf(x))                                          \
  MSL_UNARY(log2, __builtin_log2f(x))                                        \
  MSL_UNARY(log10, __builtin_log10f(x))                                      \
  MSL_UNARY(sin, __builtin_sinf(x))                                          \
  MSL_UNARY(cos, __builtin_cosf(x))                                          \
  MSL_UNARY(tan, __builtin_tanf(x))                                          \
  MSL_UNARY(sinh, __builtin_sinhf(x))                                        \
  MSL_UNARY(cosh, __builtin_coshf(x))                                        \
  MSL_UNARY(tanh, __builtin_tanhf(x))                                        \
  MSL_UNARY(asin, __builtin_asinf(x))                                        \
  MSL_UNARY(acos, __builtin_acosf(x))                                        \
  MSL_UNARY(atan, __builtin_atanf(x))                                        \
  MSL_UNARY(asinh, __builtin_asinhf(x))                                      \
  MSL_UNARY(acosh, __builtin_acoshf(x))                                      \
  MSL_UNARY(atanh, __builtin_atanhf(x))                                      \
  MSL_UNARY(sinpi, __builtin_sinf(M_PI_F* x))                                \
  MSL_UNARY(cospi, __builtin_cosf(M_PI_F* x))                                \
  MSL_UNARY(sqrt, __builtin_sqrtf(x))                                        \
  MSL_UNARY(rsqrt, 1.0f / __builtin_sqrtf(x))                                \
  MSL_UNARY(floor, __builtin_floorf(x))                                      \
  MSL_UNARY(ceil, __builtin_ceilf(x))                                        \
  MSL_UNARY(trunc, __builtin_truncf(x))                                      \
  MSL_UNARY(rint, __builtin_rintf(x))                                        \
  MSL_UNARY(round, __builtin_roundf(x))                                      \
  MSL_UNARY(fabs, __builtin_fabsf(x))                                        \
  MSL_UNARY(fract, __builtin_fminf(x - __builtin_floorf(x), 0x1.fffffep-1f)) \
  MSL_UNARY(sign, x > 0 ? 1.0f : x < 0 ? -1.0f : x == 0 ? x : 0.0f)          \
  MSL_UNARY(saturate, __builtin_fminf(__builtin_fmaxf(x, 0.0f), 1.0f))       \
  MSL_BINARY(pow, __builtin_powf(x, y))                                      \
  MSL_BINARY(powr, __builtin_powf(x, y))                                     \
  MSL_BINARY(fmin, __builtin_fminf(x, y))                                    \
  MSL_BINARY(fmax, __builtin_fmaxf(x, y))                                    \
  MSL_BINARY(fmod, __builtin_fmodf(x, y))                                    \
  MSL_BINARY(fdim, __builtin_fdimf(x, y))                                    \
  MSL_BINARY(atan2, __builtin_atan2f(x, y))                                  \
  MSL_BINARY(copysign, __builtin_copysignf(x, y))                            \
  MSL_BINARY(step, y < x ? 0.0f : 1.0f)
MSL_MATH

MSL_AI float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
MSL_AI half fma(half a, half b, half c) { return (half)__builtin_fma((double)a, (double)b, (double)c); }
template <class T, int N>
MSL_AI msl::ev<T, N> fma(msl::ev<T, N> a, msl::ev<T, N> b, msl::ev<T, N> c) {
  for (int i = 0; i < N; i++) a[i] = fma((T)a[i], (T)b[i], (T)c[i]);
  return a;
}
MSL_AI float ldexp(float x, int e) { return __builtin_ldexpf(x, e); }
MSL_AI half ldexp(half x, int e) { return (half)__builtin_ldexpf((float)x, e); }
#define MSL_CLASSIFY(T)                                        \
  MSL_AI bool isnan(T x) { return __builtin_isnan((float)x); } \
  MSL_AI bool isinf(T x) { return __builtin_isinf((float)x); } \
  MSL_AI bool isfinite(T x) { return __builtin_isfinite((float)x); }
MSL_CLASSIFY(float)
MSL_CLASSIFY(half)
#undef MSL_CLASSIFY

// Order, for every number type and its vectors.
#define MSL_ORDER(T)                                                              \
  MSL_AI T min(T a, T b) { return b < a ? b : a; }                                \
  MSL_AI T max(T a, T b) { return a < b ? b : a; }                                \
  MSL_AI T clamp(T x, T a, T b) { return min(max(x, a), b); }                     \
  template <int N>                                                                \
  MSL_AI msl::ev<T, N> min(msl::ev<T, N> a, msl::ev<T, N> b) {                    \
    for (int i = 0; i < N; i++) a[i] = b[i] < a[i] ? b[i] : a[i];                 \
    return a;                                                                     \
  }                                                                               \
  template <int N>                                                                \
  MSL_AI msl::ev<T, N> max(msl::ev<T, N> a, msl::ev<T, N> b) {                    \
    for (int i = 0; i < N; i++) a[i] = a[i] < b[i] ? b[i] : a[i];                 \
    return a;                                                                     \
  }                                                                               \
  template <int N>                                                                \
  MSL_AI msl::ev<T, N> clamp(msl::ev<T, N> x, msl::ev<T, N> a, msl::ev<T, N> b) { \
    return min(max(x, a), b);                                                     \
  }                                                                               \
  template <int N>                                                                \
  MSL_AI msl::ev<T, N> min(msl::ev<T, N> a, T b) {                                \
    return min(a, (msl::ev<T, N>)b);                                              \
  }                                                                               \
  template <int N>                                                                \
  MSL_AI msl::ev<T, N> max(msl::ev<T, N> a, T b) {                                \
    return max(a, (msl::ev<T, N>)b);                                              \
  }                                                                               \
  template <int N>                                                                \
  MSL_AI msl::ev<T, N> clamp(msl::ev<T, N> x, T a, T b) {                         \
    return clamp(x, (msl::ev<T, N>)a, (msl::ev<T, N>)b);                          \
  }
MSL_NUMBERS(MSL_ORDER)
#undef MSL_ORDER
#define MSL_ABS(T)                                     \
  MSL_AI T abs(T x) { return x < (T)0 ? (T) - x : x; } \
  template <int N>                                     \
  MSL_AI msl::ev<T, N> abs(msl::ev<T, N> v) {          \
    for (int i = 0; i < N; i++) v[i] = abs((T)v[i]);   \
    return v;                                          \
  }
MSL_ABS(char)
MSL_ABS(short)
MSL_ABS(int)
MSL_ABS(long)
MSL_ABS(float) MSL_ABS(half) MSL_ABS(bfloat)
#undef MSL_ABS

#define MSL_BLEND(T)                                                            \
  MSL_AI T mix(T a, T b, T t) { return (T)(a + (b - a) * t); }                  \
  MSL_AI T smoothstep(T a, T b, T x) {                                          \
    T t = clamp((T)((x - a) / (b - a)), (T)0, (T)1);                            \
    return (T)(t * t * ((T)3 - (T)2 * t));                                      \
  }                                                                             \
  template <int N>                                                              \
  MSL_AI msl::ev<T, N> mix(msl::ev<T, N> a, msl::ev<T, N> b, msl::ev<T, N> t) { \
    return a + (b - a) * t;                                                     \
  }                                                                             \
  template <int N>                                                              \
  MSL_AI msl::ev<T, N> mix(msl::ev<T, N> a, msl::ev<T, N> b, T t) {             \
    return a + (b - a) * t;                                                     \
  }
    MSL_BLEND(float) MSL_BLEND(half)
#undef MSL_BLEND

        template <class T, int N>
        MSL_AI T dot(msl::ev<T, N> a, msl::ev<T, N> b) {
  T s = (T)(a[0] * b[0]);
  for (int i = 1; i < N; i++) s = s + (T)(a[i] * b[i]);
  return s;
}
template <class T, int N>
MSL_AI T length_squared(msl::ev<T, N> a) {
  return dot(a, a);
}
template <class T, int N>
MSL_AI T length(msl::ev<T, N> a) {
  return sqrt(dot(a, a));
}
template <class T, int N>
MSL_AI T distance(msl::ev<T, N> a, msl::ev<T, N> b) {
  return length(a - b);
}
template <class T, int N>
MSL_AI msl::ev<T, N> normalize(msl::ev<T, N> a) {
  return a * rsqrt(dot(a, a));
}

MSL_AI bool any(bool b) { return b; }
MSL_AI bool all(bool b) { return b; }
template <class C, int N>
MSL_AI bool any(msl::ev<C, N> c) {
  bool r = false;
  for (int i = 0; i < N; i++) r |= c[i] != 0;
  return r;
}
template <class C, int N>
MSL_AI bool all(msl::ev<C, N> c) {
  bool r = true;
  for (int i = 0; i < N; i++) r &= c[i] != 0;
  return r;
}
template <class T, std::enable_if_t<msl::vt<T>::n == 1, int> = 0>
MSL_AI T select(T a, T b, bool c) {
  return c ? b : a;
}
template <class T, class C, int N>
MSL_AI msl::ev<T, N> select(msl::ev<T, N> a, msl::ev<T, N> b, msl::ev<C, N> c) {
  for (int i = 0; i < N; i++) a[i] = c[i] ? b[i] : a[i];
  return a;
}

MSL_AI uint popcount(uint x) { return (uint)__builtin_popcount(x); }
MSL_AI ulong popcount(ulong x) { return (ulong)__builtin_popcountl(x); }
MSL_AI uint clz(uint x) { return x ? (uint)__builtin_clz(x) : 32; }
MSL_AI uint ctz(uint x) { return x ? (uint)__builtin_ctz(x) : 32; }
MSL_AI uint reverse_bits(uint x) { return __builtin_bitreverse32(x); }
MSL_AI uint low_bits(uint bits) { return bits >= 32 ? ~0u : (1u << bits) - 1; }
MSL_AI uint extract_bits(uint x, uint offset, uint bits) { return bits == 0 ? 0 : x >> offset & low_bits(bits); }
MSL_AI int extract_bits(int x, uint offset, uint bits) {
  return bits == 0 ? 0 : (int)((uint)x << (32 - offset - bits)) >> (32 - bits);
}
MSL_AI uint insert_bits(uint base, uint insert, uint offset, uint bits) {
  uint mask = bits == 0 ? 0 : low_bits(bits) << offset;
  return (base & ~mask) | (insert << offset & mask);
}
MSL_AI uint rotate(uint x, uint n) {
  n &= 31;
  return n ? (x << n) | (x >> (32 - n)) : x;
}
MSL_AI uint mulhi(uint a, uint b) { return (uint)(((uint64_t)a * b) >> 32); }
MSL_AI int mulhi(int a, int b) { return (int)(((int64_t)a * b) >> 32); }
MSL_AI int mad24(int a, int b, int c) { return a * b + c; }
MSL_AI uint mad24(uint a, uint b, uint c) { return a * b + c; }
MSL_AI int mul24(int a, int b) { return a * b; }
MSL_AI uint mul24(uint a, uint b) { return a * b; }

// Here both are as precise as the host's library.
namespace fast {
MSL_MATH using metal::abs;
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
MSL_MATH using metal::abs;
using metal::clamp;
using metal::dot;
using metal::fma;
using metal::length;
using metal::max;
using metal::min;
using metal::mix;
using metal::normalize;
}  // namespace precise
#undef MSL_MATH
#undef MSL_UNARY
#undef MSL_BINARY
}  // namespace metal
