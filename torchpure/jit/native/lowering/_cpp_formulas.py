"""C++ formulas of elementwise operations, and the C++ prelude that defines their helper functions.

Arguments have the dtype of the result. In comparisons, they have a common dtype.
"""

import torch

ARITHMETIC = {  # arguments and result have the same dtype
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "neg": "-{0}",
    "abs": "op_abs({0})",
    "reciprocal": "1 / {0}",
    "relu": "op_relu({0})",
    "maximum": "op_max({0}, {1})",
    "minimum": "op_min({0}, {1})",
    "fmax": "op_fmax({0}, {1})",
    "fmin": "op_fmin({0}, {1})",
    "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
    "bitwise_left_shift": "op_shl({0}, {1})",
    "bitwise_right_shift": "op_shr({0}, {1})",
    "__lshift__": "op_shl({0}, {1})",
    "__rshift__": "op_shr({0}, {1})",
    "sign": "op_sign({0})",
    "sgn": "op_sign({0})",
    "copysign": "op_copysign({0}, {1})",
    "floor": "op_floor({0})",
    "ceil": "op_ceil({0})",
    "trunc": "op_trunc({0})",
    "sigmoid": "1 / (1 + op_exp(-{0}))",
    "lift_fresh_copy": "{0}",
    "square": "{0} * {0}",
}
ARITHMETIC.update({name: f"op_{name}({{0}})" for name in (
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "sinh", "cosh",
    "tanh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv",
)})  # fmt: skip
ARITHMETIC.update({name: f"op_{name}({{0}}, {{1}})" for name in ("atan2", "hypot", "nextafter")})

COMPARISONS = {
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "isnan": "{0} != {0}",
    "isinf": "op_isinf({0})",
    "logical_not": "!{0}",
    "logical_and": "({0} != 0) & ({1} != 0)",
    "logical_or": "({0} != 0) | ({1} != 0)",
    "logical_xor": "({0} != 0) != ({1} != 0)",
}
NOT = {torch.bool: "!{0}"}  # bitwise_not; for other dtypes ~{0}
POWERS = {0.5: "op_sqrt({0})", 1.0: "{0}", 2.0: "{0} * {0}", 3.0: "{0} * {0} * {0}", -0.5: "1 / op_sqrt({0})", -1.0: "1 / {0}", -2.0: "1 / ({0} * {0})"}  # fmt: skip  # noqa: E501

_UNARY = (
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin",
    "acos", "atan", "asinh", "acosh", "atanh", "erf", "erfc", "cbrt",
)  # fmt: skip
_BINARY = ("pow", "atan2", "hypot")
_SCALAR = ("nextafter", "fmod")  # libmvec has no vector version

# libmvec has a vector version of each function; without libmvec, VECTOR is empty and calls stay scalar
_DECLARED = "\n".join(
    f"VECTOR {c} {name}{end}({', '.join([c] * arity)}) noexcept;"
    for names, arity in ((_UNARY, 1), (_BINARY, 2))
    for name in names
    for c, end in (("float", "f"), ("double", ""))
) + "\n" + "\n".join(f"{c} {name}{end}({c}, {c}) noexcept;" for name in _SCALAR for c, end in (("float", "f"), ("double", "")))  # fmt: skip  # noqa: E501
_WRAPPED = "\n".join(
    f"INLINE {c} op_{name}({', '.join(f'{c} {a}' for a in 'xy'[:arity])}) "
    f"{{ return {name}{end}({', '.join('xy'[:arity])}); }}"
    for names, arity in ((_UNARY, 1), (_BINARY, 2), (("nextafter",), 2))
    for name in names
    for c, end in (("float", "f"), ("double", ""))
)

PRELUDE = f"""#include <stdint.h>
#include <stdlib.h>
#ifndef VECTOR
#define VECTOR
#endif
#define INLINE static inline __attribute__((always_inline))
extern "C" {{
{_DECLARED}
}}
{_WRAPPED}
INLINE float op_sqrt(float x) {{ return __builtin_sqrtf(x); }}
INLINE double op_sqrt(double x) {{ return __builtin_sqrt(x); }}
template <class T> INLINE T op_rsqrt(T x) {{ return 1 / op_sqrt(x); }}
INLINE float op_floor(float x) {{ return __builtin_floorf(x); }}
INLINE double op_floor(double x) {{ return __builtin_floor(x); }}
INLINE float op_ceil(float x) {{ return __builtin_ceilf(x); }}
INLINE double op_ceil(double x) {{ return __builtin_ceil(x); }}
INLINE float op_trunc(float x) {{ return __builtin_truncf(x); }}
INLINE double op_trunc(double x) {{ return __builtin_trunc(x); }}
INLINE float op_rint(float x) {{ return __builtin_rintf(x); }}
INLINE double op_rint(double x) {{ return __builtin_rint(x); }}
template <class T> INLINE T op_floor(T x) {{ return x; }}
template <class T> INLINE T op_ceil(T x) {{ return x; }}
template <class T> INLINE T op_trunc(T x) {{ return x; }}
template <class T> INLINE T op_rint(T x) {{ return x; }}
INLINE float op_copysign(float x, float y) {{ return __builtin_copysignf(x, y); }}
INLINE double op_copysign(double x, double y) {{ return __builtin_copysign(x, y); }}
INLINE float op_abs(float x) {{ return __builtin_fabsf(x); }}
INLINE double op_abs(double x) {{ return __builtin_fabs(x); }}
template <class T> INLINE T op_abs(T x) {{ return x < 0 ? T(-x) : x; }}
template <class T> INLINE T op_erfinv(T y) {{
  const T w = op_abs(y), z = w <= T(0.7) ? y * y : op_sqrt(-op_log((1 - w) / 2));
  const T near = y * (((T(-0.140543331) * z + T(0.914624893)) * z + T(-1.645349621)) * z + T(0.886226899)) / ((((T(0.012229801) * z + T(-0.329097515)) * z + T(1.442710462)) * z + T(-2.118377725)) * z + 1);
  const T far = (((T(1.641345311) * z + T(3.429567803)) * z + T(-1.624906493)) * z + T(-1.970840454)) / ((T(1.637067800) * z + T(3.543889200)) * z + 1);
  T x = w <= T(0.7) ? near : y < 0 ? -far : far;
  x -= (op_erf(x) - y) / (T(1.1283791670955126) * op_exp(-x * x));
  x -= (op_erf(x) - y) / (T(1.1283791670955126) * op_exp(-x * x));
  return w < 1 ? x : w == 1 ? y * T(__builtin_inf()) : T(__builtin_nan(""));
}}
INLINE bool op_isinf(float x) {{ return op_abs(x) == __builtin_inff(); }}
INLINE bool op_isinf(double x) {{ return op_abs(x) == __builtin_inf(); }}
template <class T> INLINE bool op_isinf(T) {{ return false; }}
template <class T> INLINE T op_max(T x, T y) {{ return (x != x) | (x > y) ? x : y; }}
template <class T> INLINE T op_min(T x, T y) {{ return (x != x) | (x < y) ? x : y; }}
template <class T> INLINE T op_relu(T x) {{ return op_max(x, T(0)); }}
template <class T> INLINE T op_fmax(T x, T y) {{ return (y != y) | (x > y) ? x : y; }}
template <class T> INLINE T op_fmin(T x, T y) {{ return (y != y) | (x < y) ? x : y; }}
template <class T> INLINE T op_sign(T x) {{ return T(T(x > 0) - T(x < 0)); }}
INLINE float op_fmod(float x, float y) {{ return fmodf(x, y); }}
INLINE double op_fmod(double x, double y) {{ return fmod(x, y); }}
template <class T> INLINE T op_fmod(T x, T y) {{ return y == T(-1) || y == 0 ? T(0) : T(x % y); }}
template <class T> INLINE T op_remainder(T x, T y) {{ T r = op_fmod(x, y); return r != 0 && (r < 0) != (y < 0) ? T(r + y) : r; }}
template <class T> INLINE T op_divide_down(T x, T y) {{
  const T m = op_fmod(x, y);
  const T q = (x - m) / y - (m != 0 && (m < 0) != (y < 0) ? T(1) : T(0)), f = op_floor(q);
  return y == 0 ? x / y : q == 0 ? op_copysign(T(0), x / y) : q - f > T(0.5) ? f + 1 : f;
}}
template <class T> INLINE T op_trunc_divide(T x, T y, int &bad) {{ bad |= y == 0 ? 2 : 0; return y == T(-1) ? T(-x) : y == 0 ? T(0) : T(x / y); }}
template <class T> INLINE T op_floor_divide(T x, T y, int &bad) {{ T q = op_trunc_divide(x, y, bad); return op_fmod(x, y) != 0 && (x < 0) != (y < 0) ? T(q - 1) : q; }}
template <class T> INLINE T op_modulo(T x, T y, int &bad) {{ bad |= y == 0 ? 2 : 0; return op_remainder(x, y); }}
template <class T> INLINE T op_ipow(T x, T n) {{ T r = 1; if (n < 0) return x == 1 ? 1 : x == T(-1) ? (n & 1 ? T(-1) : T(1)) : T(0); for (; n; n >>= 1, x *= x) if (n & 1) r *= x; return r; }}
template <class T> INLINE T op_shl(T x, T n) {{ return n < 0 || n >= T(8 * sizeof(T)) ? T(0) : T(uint64_t(x) << n); }}
template <class T> INLINE T op_shr(T x, T n) {{ return x >> (n < 0 || n >= T(8 * sizeof(T)) ? T(8 * sizeof(T) - 1) : n); }}
template <class T> INLINE bool op_before(T x, T y, bool down) {{ return down ? (x != x ? y == y : x > y) : (y != y ? x == x : x < y); }}
template <class T> static void op_sort(const T *x, int64_t step, int64_t n, T *v, int64_t *at, int64_t out, bool down, T *v2, int64_t *at2) {{
  T *a = v2, *b = v2 + n; int64_t *p = at2, *q = at2 + n;
  for (int64_t i = 0; i < n; i++) {{ a[i] = x[i * step]; p[i] = i; }}
  for (int64_t w = 1; w < n; w *= 2) {{
    for (int64_t l = 0; l < n; l += 2 * w) {{
      const int64_t m = l + w < n ? l + w : n, r = l + 2 * w < n ? l + 2 * w : n;
      for (int64_t i = l, j = m, k = l; k < r; k++) {{
        const bool right = j < r && (i >= m || op_before(a[j], a[i], down));
        b[k] = right ? a[j] : a[i]; q[k] = right ? p[j++] : p[i++];
      }}
    }}
    T *c = a; a = b; b = c; int64_t *s = p; p = q; q = s;
  }}
  for (int64_t i = 0; i < n; i++) {{ v[i * out] = a[i]; at[i * out] = p[i]; }}
}}
INLINE int64_t op_place(int64_t i, int64_t n, int &bad) {{ int64_t j = i < 0 ? i + n : i; int out = (j < 0) | (j >= n); bad |= out; return out ? 0 : j; }}
INLINE int64_t op_row(int64_t i, int64_t n, int &bad) {{ int out = (i < 0) | (i >= n); bad |= out; return out ? 0 : i; }}
"""  # noqa: E501
