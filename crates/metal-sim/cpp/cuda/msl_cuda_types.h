// MSL scalar and vector types as classes: nvcc has no vector extension.
#pragma once

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;

#define CHAR_MIN (-128)
#define CHAR_MAX 127
#define UCHAR_MAX 255
#define SHRT_MIN (-32768)
#define SHRT_MAX 32767
#define USHRT_MAX 65535
#define INT_MIN (-2147483647 - 1)
#define INT_MAX 2147483647
#define UINT_MAX 4294967295u
#define LONG_MIN (-9223372036854775807l - 1)
#define LONG_MAX 9223372036854775807l
#define ULONG_MAX 18446744073709551615ul
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f

namespace metal {
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef unsigned long size_t;
typedef long ptrdiff_t;

template <class A, class B>
struct is_same {
  static constexpr bool value = false;
};
template <class A>
struct is_same<A, A> {
  static constexpr bool value = true;
};
template <class A, class B>
constexpr bool is_same_v = is_same<A, B>::value;
template <bool C, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  typedef T type;
};
template <bool C, class T = void>
using enable_if_t = typename enable_if<C, T>::type;
template <bool C, class A, class B>
struct conditional {
  typedef A type;
};
template <class A, class B>
struct conditional<false, A, B> {
  typedef B type;
};
template <bool C, class A, class B>
using conditional_t = typename conditional<C, A, B>::type;

template <class To, class From>
inline To as_type(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "as_type: sizes differ");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

struct half;
struct bfloat;

// Whether T is a number: what a vector can be made of or multiplied by.
template <class T>
struct is_number {
  static constexpr bool value = false;
};
// Whether it is one of the language.
template <class T>
struct is_plain {
  static constexpr bool value = false;
};
#define MSL_PLAIN(T)                    \
  template <>                           \
  struct is_plain<T> {                  \
    static constexpr bool value = true; \
  };                                    \
  template <>                           \
  struct is_number<T> {                 \
    static constexpr bool value = true; \
  };
MSL_PLAIN(bool)
MSL_PLAIN(char)
MSL_PLAIN(signed char)
MSL_PLAIN(unsigned char)
MSL_PLAIN(short)
MSL_PLAIN(unsigned short)
MSL_PLAIN(int)
MSL_PLAIN(unsigned int)
MSL_PLAIN(long)
MSL_PLAIN(unsigned long)
MSL_PLAIN(long long)
MSL_PLAIN(unsigned long long)
MSL_PLAIN(float)
MSL_PLAIN(double)
#undef MSL_PLAIN
template <>
struct is_number<half> {
  static constexpr bool value = true;
};
template <>
struct is_number<bfloat> {
  static constexpr bool value = true;
};

// Arithmetic of two halves is that of halves, as in MSL; with another number it goes through float. Operators are
// templates so that no conversion of an operand makes them ambiguous with the language's own.
struct half {
  ushort bits;
  half() = default;
  template <class U, class = enable_if_t<is_plain<U>::value>>
  half(U v) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"((float)v));
  }
  explicit half(bfloat v);
  operator float() const {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
  }
};
struct bfloat {
  ushort bits;
  bfloat() = default;
  template <class U, class = enable_if_t<is_plain<U>::value>>
  bfloat(U v) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"((float)v));
  }
  explicit bfloat(half v) : bfloat((float)v) {}
  operator float() const { return as_type<float>((uint)bits << 16); }
};
inline half::half(bfloat v) : half((float)v) {}

// A sum or product of two halves in float, rounded once to half, is what the half instruction gives: float has more
// than twice the bits.
template <class T>
struct is_short_float {
  static constexpr bool value = is_same_v<T, half> || is_same_v<T, bfloat>;
};
#define MSL_SHORT_ARITHMETIC(op)                                             \
  template <class T, class = enable_if_t<is_short_float<T>::value>>          \
  inline T operator op(T a, T b) {                                           \
    return T((float)a op(float) b);                                          \
  }                                                                          \
  template <class T, class U, class = enable_if_t<is_short_float<T>::value>> \
  inline T& operator op##=(T & a, U b) {                                     \
    a = T((float)a op(float) b);                                             \
    return a;                                                                \
  }
MSL_SHORT_ARITHMETIC(+)
MSL_SHORT_ARITHMETIC(-)
MSL_SHORT_ARITHMETIC(*)
MSL_SHORT_ARITHMETIC(/)
#undef MSL_SHORT_ARITHMETIC
#define MSL_SHORT_COMPARISON(op)                                    \
  template <class T, class = enable_if_t<is_short_float<T>::value>> \
  inline bool operator op(T a, T b) {                               \
    return (float)a op(float) b;                                    \
  }
MSL_SHORT_COMPARISON(<)
MSL_SHORT_COMPARISON(>)
MSL_SHORT_COMPARISON(<=)
MSL_SHORT_COMPARISON(>=)
MSL_SHORT_COMPARISON(==)
MSL_SHORT_COMPARISON(!=)
#undef MSL_SHORT_COMPARISON
template <class T, class = enable_if_t<is_short_float<T>::value>>
inline T operator-(T a) {
  T r;
  r.bits = a.bits ^ 0x8000;
  return r;
}

template <class T, int N>
struct vec;
template <class T, int N>
struct packed_vec;

// Components of a constructor's argument.
template <class A>
struct components {
  static constexpr int n = 1;
};
template <class T, int N>
struct components<vec<T, N>> {
  static constexpr int n = N;
};
template <class T, int N>
struct components<packed_vec<T, N>> {
  static constexpr int n = N;
};

// What `v.xy = w` assigns to.
template <class T, int N, int... I>
struct swizzled {
  vec<T, N>& v;
  void operator=(vec<T, sizeof...(I)> w) {
    int from = 0;
    ((v[I] = w[from++]), ...);
  }
#define MSL_ASSIGN(op)                       \
  template <class W>                         \
  void operator op##=(W w) {                 \
    *this = v.template swizzle<I...>() op w; \
  }
  MSL_ASSIGN(+) MSL_ASSIGN(-) MSL_ASSIGN(*) MSL_ASSIGN(/) MSL_ASSIGN(&) MSL_ASSIGN(|) MSL_ASSIGN(^)
#undef MSL_ASSIGN
};

#define MSL_VEC_MEMBERS(V, N)                                                              \
  V() = default;                                                                           \
  template <class A, class B, class... R>                                                  \
  V(A a, B b, R... r) {                                                                    \
    static_assert(components<A>::n + components<B>::n + (components<R>::n + ... + 0) == N, \
                  "vector constructor: wrong number of components");                       \
    int i = put(put(0, a), b);                                                             \
    ((i = put(i, r)), ...);                                                                \
  }                                                                                        \
  template <class A>                                                                       \
  int put(int i, const A& a) {                                                             \
    if constexpr (components<A>::n == 1) {                                                 \
      (*this)[i] = T(a);                                                                   \
    } else {                                                                               \
      for (int k = 0; k < components<A>::n; ++k) (*this)[i + k] = T(a[k]);                 \
    }                                                                                      \
    return i + components<A>::n;                                                           \
  }                                                                                        \
  T& operator[](int i) { return (&x)[i]; }                                                 \
  const T& operator[](int i) const { return (&x)[i]; }                                     \
  template <int... I>                                                                      \
  vec<T, sizeof...(I)> swizzle() const {                                                   \
    return vec<T, sizeof...(I)>((*this)[I]...);                                            \
  }

#define MSL_VEC(N, ALIGNMENT, ...)                               \
  template <class T>                                             \
  struct alignas(ALIGNMENT * sizeof(T)) vec<T, N> {              \
    T __VA_ARGS__;                                               \
    MSL_VEC_MEMBERS(vec, N)                                      \
    template <class U, class = enable_if_t<is_number<U>::value>> \
    vec(U s) {                                                   \
      for (int i = 0; i < N; ++i) (*this)[i] = T(s);             \
    }                                                            \
    template <class U, class = enable_if_t<!is_same_v<T, U>>>    \
    explicit vec(const vec<U, N>& v) {                           \
      put(0, v);                                                 \
    }                                                            \
    template <class U, class = enable_if_t<!is_same_v<T, U>>>    \
    explicit vec(const packed_vec<U, N>& v) {                    \
      put(0, v);                                                 \
    }                                                            \
    vec(const packed_vec<T, N>& v) { put(0, v); }                \
    template <int... I>                                          \
    swizzled<T, N, I...> swizzle_of() {                          \
      return swizzled<T, N, I...>{*this};                        \
    }                                                            \
  };                                                             \
  /* aligned to one component */                                 \
  template <class T>                                             \
  struct packed_vec<T, N> {                                      \
    T __VA_ARGS__;                                               \
    MSL_VEC_MEMBERS(packed_vec, N)                               \
    packed_vec(const vec<T, N>& v) { put(0, v); }                \
  };
MSL_VEC(2, 2, x, y)
MSL_VEC(3, 4, x, y, z)
MSL_VEC(4, 4, x, y, z, w)
#undef MSL_VEC
#undef MSL_VEC_MEMBERS

#define MSL_NAMES(T)                      \
  typedef vec<T, 2> T##2;                 \
  typedef vec<T, 3> T##3;                 \
  typedef vec<T, 4> T##4;                 \
  typedef packed_vec<T, 2> packed_##T##2; \
  typedef packed_vec<T, 3> packed_##T##3; \
  typedef packed_vec<T, 4> packed_##T##4;
MSL_NAMES(bool)
MSL_NAMES(char)
MSL_NAMES(uchar)
MSL_NAMES(short)
MSL_NAMES(ushort)
MSL_NAMES(int)
MSL_NAMES(uint)
MSL_NAMES(long)
MSL_NAMES(ulong)
MSL_NAMES(float)
MSL_NAMES(half)
MSL_NAMES(bfloat)
#undef MSL_NAMES

#define MSL_VECTOR_OPERATOR(op)                                                \
  template <class T, int N>                                                    \
  inline vec<T, N> operator op(const vec<T, N>& a, const vec<T, N>& b) {       \
    vec<T, N> r;                                                               \
    for (int i = 0; i < N; ++i) r[i] = T(a[i] op b[i]);                        \
    return r;                                                                  \
  }                                                                            \
  template <class T, int N, class U, class = enable_if_t<is_number<U>::value>> \
  inline vec<T, N> operator op(const vec<T, N>& a, U b) {                      \
    return a op vec<T, N>(b);                                                  \
  }                                                                            \
  template <class T, int N, class U, class = enable_if_t<is_number<U>::value>> \
  inline vec<T, N> operator op(U a, const vec<T, N>& b) {                      \
    return vec<T, N>(a) op b;                                                  \
  }                                                                            \
  template <class T, int N, class U>                                           \
  inline vec<T, N>& operator op##=(vec<T, N>& a, const U & b) {                \
    a = a op b;                                                                \
    return a;                                                                  \
  }
MSL_VECTOR_OPERATOR(+)
MSL_VECTOR_OPERATOR(-)
MSL_VECTOR_OPERATOR(*)
MSL_VECTOR_OPERATOR(/)
MSL_VECTOR_OPERATOR(%)
MSL_VECTOR_OPERATOR(&)
MSL_VECTOR_OPERATOR(|)
MSL_VECTOR_OPERATOR(^)
MSL_VECTOR_OPERATOR(<<)
MSL_VECTOR_OPERATOR(>>)
#undef MSL_VECTOR_OPERATOR
#define MSL_VECTOR_COMPARISON(op)                                              \
  template <class T, int N>                                                    \
  inline vec<bool, N> operator op(const vec<T, N>& a, const vec<T, N>& b) {    \
    vec<bool, N> r;                                                            \
    for (int i = 0; i < N; ++i) r[i] = a[i] op b[i];                           \
    return r;                                                                  \
  }                                                                            \
  template <class T, int N, class U, class = enable_if_t<is_number<U>::value>> \
  inline vec<bool, N> operator op(const vec<T, N>& a, U b) {                   \
    return a op vec<T, N>(b);                                                  \
  }
MSL_VECTOR_COMPARISON(<)
MSL_VECTOR_COMPARISON(>)
MSL_VECTOR_COMPARISON(<=)
MSL_VECTOR_COMPARISON(>=)
MSL_VECTOR_COMPARISON(==)
MSL_VECTOR_COMPARISON(!=)
#undef MSL_VECTOR_COMPARISON
template <class T, int N>
inline vec<T, N> operator-(const vec<T, N>& a) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = T(-a[i]);
  return r;
}
template <class T, int N>
inline vec<T, N> operator~(const vec<T, N>& a) {
  vec<T, N> r;
  for (int i = 0; i < N; ++i) r[i] = T(~a[i]);
  return r;
}
template <int N>
inline vec<bool, N> operator!(const vec<bool, N>& a) {
  vec<bool, N> r;
  for (int i = 0; i < N; ++i) r[i] = !a[i];
  return r;
}

template <class T>
struct numeric_limits;
template <>
struct numeric_limits<float> {
  static constexpr float max() { return FLT_MAX; }
  static constexpr float min() { return FLT_MIN; }
  static constexpr float lowest() { return -FLT_MAX; }
  static constexpr float epsilon() { return FLT_EPSILON; }
  static float infinity() { return as_type<float>(0x7f800000u); }
  static float quiet_NaN() { return as_type<float>(0x7fc00000u); }
};
template <>
struct numeric_limits<half> {
  static half max() { return half(65504.0f); }
  static half min() { return half(6.103515625e-05f); }
  static half lowest() { return half(-65504.0f); }
  static half epsilon() { return half(9.765625e-04f); }
  static half infinity() { return as_type<half>((ushort)0x7c00); }
  static half quiet_NaN() { return as_type<half>((ushort)0x7e00); }
};
#define MSL_INTEGER_LIMITS(T, LOWEST, MOST)       \
  template <>                                     \
  struct numeric_limits<T> {                      \
    static constexpr T max() { return MOST; }     \
    static constexpr T min() { return LOWEST; }   \
    static constexpr T lowest() { return min(); } \
  };
MSL_INTEGER_LIMITS(char, CHAR_MIN, CHAR_MAX)
MSL_INTEGER_LIMITS(uchar, 0, UCHAR_MAX)
MSL_INTEGER_LIMITS(short, SHRT_MIN, SHRT_MAX)
MSL_INTEGER_LIMITS(ushort, 0, USHRT_MAX)
MSL_INTEGER_LIMITS(int, INT_MIN, INT_MAX)
MSL_INTEGER_LIMITS(uint, 0, UINT_MAX)
MSL_INTEGER_LIMITS(long, LONG_MIN, LONG_MAX)
MSL_INTEGER_LIMITS(ulong, 0, ULONG_MAX)
#undef MSL_INTEGER_LIMITS
}  // namespace metal

namespace msl {
// `vec<T, N>(a, b)` of the rewriting.
template <class V, class... A>
inline V mk(A... a) {
  return V(a...);
}
}  // namespace msl
