// MSL constants and math functions.
#pragma once
#include "msl_types.h"

#ifndef M_PI_F
#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_1_PI_F 0.31830988618379067154f
#define M_2_PI_F 0.63661977236758134308f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.70710678118654752440f
#define M_E_F 2.71828182845904523536f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LN2_F 0.69314718055994530942f
#endif
#ifndef MAXFLOAT
#define MAXFLOAT FLT_MAX
#endif
#define HALF_MAX ((half)65504.0f)
#undef INFINITY
#define INFINITY __builtin_inff()
#undef NAN
#define NAN __builtin_nanf("")
namespace metal {
// ---- math: exact overloads per type, so that mixed-type min/max/clamp is ambiguous here as it is for Apple ----
#define MSL_F1(NAME, EXPR) \
  MSL_AI float NAME(float x) { return EXPR; } MSL_AI half NAME(half h) { float x = (float)h; return (half)(EXPR); } MSL_AI bfloat NAME(bfloat h) { float x = (float)h; return (bfloat)(EXPR); } \
  template <class T, int N> MSL_AI msl::ev<T, N> NAME(msl::ev<T, N> v) { msl::ev<T, N> r; for (int i = 0; i < N; i++) r[i] = NAME((T)v[i]); return r; }
#define MSL_F2(NAME, EXPR) \
  MSL_AI float NAME(float x, float y) { return EXPR; } MSL_AI half NAME(half a, half b) { float x = (float)a, y = (float)b; return (half)(EXPR); } \
  MSL_AI bfloat NAME(bfloat a, bfloat b) { float x = (float)a, y = (float)b; return (bfloat)(EXPR); } \
  template <class T, int N> MSL_AI msl::ev<T, N> NAME(msl::ev<T, N> a, msl::ev<T, N> b) { msl::ev<T, N> r; for (int i = 0; i < N; i++) r[i] = NAME((T)a[i], (T)b[i]); return r; }
#define MSL_MATH \
  MSL_F1(exp, __builtin_expf(x)) MSL_F1(exp2, __builtin_exp2f(x)) MSL_F1(exp10, __builtin_powf(10.0f, x)) MSL_F1(log, __builtin_logf(x)) MSL_F1(log2, __builtin_log2f(x)) MSL_F1(log10, __builtin_log10f(x)) \
  MSL_F1(sin, __builtin_sinf(x)) MSL_F1(cos, __builtin_cosf(x)) MSL_F1(tan, __builtin_tanf(x)) MSL_F1(sinh, __builtin_sinhf(x)) MSL_F1(cosh, __builtin_coshf(x)) MSL_F1(tanh, __builtin_tanhf(x)) \
  MSL_F1(asin, __builtin_asinf(x)) MSL_F1(acos, __builtin_acosf(x)) MSL_F1(atan, __builtin_atanf(x)) MSL_F1(sqrt, __builtin_sqrtf(x)) MSL_F1(rsqrt, 1.0f / __builtin_sqrtf(x)) \
  MSL_F1(floor, __builtin_floorf(x)) MSL_F1(ceil, __builtin_ceilf(x)) MSL_F1(trunc, __builtin_truncf(x)) MSL_F1(rint, __builtin_rintf(x)) MSL_F1(round, __builtin_roundf(x)) \
  MSL_F1(fabs, __builtin_fabsf(x)) MSL_F1(fract, x - __builtin_floorf(x)) MSL_F1(sign, x > 0 ? 1.0f : x < 0 ? -1.0f : x) MSL_F1(saturate, x < 0 ? 0.0f : x > 1 ? 1.0f : x) \
  MSL_F2(pow, __builtin_powf(x, y)) MSL_F2(powr, __builtin_powf(x, y)) MSL_F2(fmin, __builtin_fminf(x, y)) MSL_F2(fmax, __builtin_fmaxf(x, y)) MSL_F2(fmod, __builtin_fmodf(x, y)) \
  MSL_F2(atan2, __builtin_atan2f(x, y)) MSL_F2(copysign, __builtin_copysignf(x, y)) MSL_F2(step, y < x ? 0.0f : 1.0f)
MSL_MATH
MSL_AI float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
MSL_AI half fma(half a, half b, half c) { return (half)__builtin_fma((double)a, (double)b, (double)c); }
template <class T, int N> MSL_AI msl::ev<T, N> fma(msl::ev<T, N> a, msl::ev<T, N> b, msl::ev<T, N> c) { msl::ev<T, N> r; for (int i = 0; i < N; i++) r[i] = fma((T)a[i], (T)b[i], (T)c[i]); return r; }
MSL_AI bool isnan(float x) { return __builtin_isnan(x); } MSL_AI bool isinf(float x) { return __builtin_isinf(x); } MSL_AI bool isfinite(float x) { return __builtin_isfinite(x); }
MSL_AI bool isnan(half x) { return __builtin_isnan((float)x); } MSL_AI bool isinf(half x) { return __builtin_isinf((float)x); } MSL_AI bool isfinite(half x) { return __builtin_isfinite((float)x); }
MSL_AI float ldexp(float x, int e) { return __builtin_ldexpf(x, e); }
#define MSL_MM(T) MSL_AI T min(T a, T b) { return b < a ? b : a; } MSL_AI T max(T a, T b) { return a < b ? b : a; } MSL_AI T clamp(T x, T a, T b) { return min(max(x, a), b); }
#define MSL_MMV(T) template <int N> MSL_AI msl::ev<T, N> min(msl::ev<T, N> a, msl::ev<T, N> b) { for (int i = 0; i < N; i++) a[i] = b[i] < a[i] ? b[i] : a[i]; return a; } \
  template <int N> MSL_AI msl::ev<T, N> max(msl::ev<T, N> a, msl::ev<T, N> b) { for (int i = 0; i < N; i++) a[i] = a[i] < b[i] ? b[i] : a[i]; return a; } \
  template <int N> MSL_AI msl::ev<T, N> clamp(msl::ev<T, N> x, msl::ev<T, N> a, msl::ev<T, N> b) { return min(max(x, a), b); } \
  template <int N> MSL_AI msl::ev<T, N> clamp(msl::ev<T, N> x, T a, T b) { for (int i = 0; i < N; i++) x[i] = clamp((T)x[i], a, b); return x; }
#define MSL_EACH(M) M(char) M(uchar) M(short) M(ushort) M(int) M(uint) M(long) M(ulong) M(float) M(half) M(bfloat)
MSL_EACH(MSL_MM) MSL_EACH(MSL_MMV)
#define MSL_AB(T) MSL_AI T abs(T x) { return x < (T)0 ? (T)-x : x; }
MSL_AB(char) MSL_AB(short) MSL_AB(int) MSL_AB(long) MSL_AB(float) MSL_AB(half) MSL_AB(bfloat)
template <class T, int N> MSL_AI msl::ev<T, N> abs(msl::ev<T, N> v) { for (int i = 0; i < N; i++) v[i] = abs((T)v[i]); return v; }
MSL_AI float mix(float a, float b, float t) { return a + (b - a) * t; }
MSL_AI half mix(half a, half b, half t) { return a + (b - a) * t; }
template <class T, int N> MSL_AI msl::ev<T, N> mix(msl::ev<T, N> a, msl::ev<T, N> b, T t) { return a + (b - a) * t; }
template <class T, int N> MSL_AI T dot(msl::ev<T, N> a, msl::ev<T, N> b) { T s = (T)(a[0] * b[0]); for (int i = 1; i < N; i++) s = s + (T)(a[i] * b[i]); return s; }
template <class T, int N> MSL_AI T length_squared(msl::ev<T, N> a) { return dot(a, a); }
template <class T, int N> MSL_AI T length(msl::ev<T, N> a) { return sqrt(dot(a, a)); }
template <class T, int N> MSL_AI msl::ev<T, N> normalize(msl::ev<T, N> a) { return a * rsqrt(dot(a, a)); }
template <class C, int N> MSL_AI bool any(msl::ev<C, N> c) { bool r = false; for (int i = 0; i < N; i++) r |= c[i] != 0; return r; }
template <class C, int N> MSL_AI bool all(msl::ev<C, N> c) { bool r = true; for (int i = 0; i < N; i++) r &= c[i] != 0; return r; }
MSL_AI bool any(bool b) { return b; } MSL_AI bool all(bool b) { return b; }
template <class T, std::enable_if_t<msl::vt<T>::n == 1, int> = 0> MSL_AI T select(T a, T b, bool c) { return c ? b : a; }
template <class T, class C, int N> MSL_AI msl::ev<T, N> select(msl::ev<T, N> a, msl::ev<T, N> b, msl::ev<C, N> c) { for (int i = 0; i < N; i++) a[i] = c[i] ? b[i] : a[i]; return a; }
MSL_AI uint popcount(uint x) { return __builtin_popcount(x); } MSL_AI ulong popcount(ulong x) { return __builtin_popcountll(x); }
MSL_AI uint clz(uint x) { return x ? __builtin_clz(x) : 32; } MSL_AI uint ctz(uint x) { return x ? __builtin_ctz(x) : 32; }
MSL_AI uint reverse_bits(uint x) { return __builtin_bitreverse32(x); }
MSL_AI uint extract_bits(uint x, uint o, uint b) { return b == 0 ? 0 : (x >> o) & (b >= 32 ? ~0u : (1u << b) - 1); }
MSL_AI int extract_bits(int x, uint o, uint b) { return b == 0 ? 0 : (int)((uint)x << (32 - o - b)) >> (32 - b); }
MSL_AI uint insert_bits(uint base, uint insert, uint o, uint b) {
  uint mask = b >= 32 ? ~0u : ((1u << b) - 1) << o;
  return (base & ~mask) | (insert << o & mask);
}
MSL_AI uint rotate(uint x, uint n) { n &= 31; return n ? (x << n) | (x >> (32 - n)) : x; }
MSL_AI uint mulhi(uint a, uint b) { return (uint)(((uint64_t)a * b) >> 32); } MSL_AI int mulhi(int a, int b) { return (int)(((int64_t)a * b) >> 32); }
MSL_AI int mad24(int a, int b, int c) { return a * b + c; } MSL_AI uint mad24(uint a, uint b, uint c) { return a * b + c; }
MSL_AI int mul24(int a, int b) { return a * b; } MSL_AI uint mul24(uint a, uint b) { return a * b; }
MSL_AI float unpack_half(ushort b) { return (float)as_type<half>(b); }
namespace fast { MSL_MATH using metal::fma; using metal::min; using metal::max; using metal::clamp; using metal::dot; using metal::normalize; using metal::length; }
namespace precise { MSL_MATH using metal::fma; using metal::min; using metal::max; using metal::clamp; using metal::dot; }
}  // namespace metal
