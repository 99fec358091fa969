"""Derivatives of torch's functions at the borders of their formulas, against references of sixty digits.

Each problem is a function of one number `s`, at s = 0: a function of torch along a line through a border. Its first three
derivatives come from mpmath, or are given where a convention decides (a kink, a norm at zero).
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import mpmath as mp
import torch
import torch.nn.functional as F
from mpmath import mpf
from torch import Tensor, special

import torchpure as tp

DIGITS = 60
SLACK = {torch.float64: 1e-6, torch.float32: 2e-3}  # torch's Bessel functions J and Y are off by 1e-7
ORDERS = (1, 2, 3)


class Border(NamedTuple):
    """A function along a line, and its derivatives."""

    function: str
    place: str
    along: Callable[[Tensor], Tensor]  # of s, in the dtype of s
    exact: Callable[[], tuple[float, ...]]  # its derivatives at s = 0


# each takes a function of a number, and returns its derivative
def _reverse(lib: Any, f: Any) -> Any:
    return lib.grad(f)


def _forward(lib: Any, f: Any) -> Any:
    return lambda s: lib.jvp(f, (s,), (torch.ones_like(s),))[1]


def _mapped(lib: Any, f: Any) -> Any:
    return lambda s: lib.vmap(lib.grad(f))(s[None])[0]


def _jacobian(lib: Any, f: Any) -> Any:
    return lambda s: lib.jacfwd(lambda v: f(v[0]))(s[None])[0]


def _linearized(lib: Any, f: Any) -> Any:
    return lambda s: lib.linearize(f, s)[1](torch.ones_like(s))


_LETTERS = {"r": _reverse, "f": _forward, "m": _mapped, "j": _jacobian, "l": _linearized}
# words of derivatives, the outermost first: "rf" is grad of jvp
WORDS = ["".join(word) for order in ORDERS for word in itertools.product("rf", repeat=order)]
WORDS += ["m", "j", "l", "mm", "jr", "jj", "rj", "lr", "mf", "rm"]
JIT = "jit"  # one program of these words:
COMPILED = ["r", "f", "m", "l", "rr", "fr", "ff", "rf", "rrr", "frr", "fff"]


def derivative(word: str, f: Any, lib: Any = tp) -> Any:
    """Return the derivative of a function of a number that a word stands for."""
    for letter in reversed(word):
        f = _LETTERS[letter](lib, f)
    return f


def outcome(border: Border, word: str, dtype: torch.dtype = torch.float64, lib: Any = tp) -> str:
    """Say what a word gives: `right`, `refused: …` or `wrong: …`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            words = COMPILED if word == JIT else [word]
            run = partial(_all, border, words, lib)
            found = (tp.jit(run) if word == JIT else run)(torch.zeros((), dtype=dtype))
        except Exception as error:  # whatever it is: an error is an answer, a wrong number is not
            return f"refused: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    for one, got in zip(words, found, strict=True):
        wanted = border.exact()[len(one) - 1]
        if not close(float(got), wanted, SLACK[dtype]):
            return f"wrong: {float(got):.6g} in {one}, exact {wanted:.6g}"
    return "right"


def _all(border: Border, words: list[str], lib: Any, s: Tensor) -> list[Tensor]:
    return [derivative(word, border.along, lib)(s) for word in words]


def close(got: float, wanted: float, slack: float) -> bool:
    """Tell whether two numbers are equal up to rounding."""
    return got == wanted or abs(got - wanted) <= slack * (1 + abs(wanted)) or (math.isnan(got) and math.isnan(wanted))


def _by_mpmath(g: Callable[[Any], Any]) -> Callable[[], tuple[float, ...]]:
    """Return the derivatives at 0 of a function of mpmath; next to 0 where mpmath has no value at it."""
    found: list[float] = []

    def exact() -> tuple[float, ...]:
        if not found:
            with mp.workdps(DIGITS):
                found.extend(_difference(g, order) for order in ORDERS)
        return tuple(found)

    return exact


def _difference(g: Callable[[Any], Any], order: int) -> float:
    step = mpf(10) ** -15
    try:
        return float(mp.re(mp.diff(g, 0, order, h=step)))
    except (ValueError, ZeroDivisionError):
        return float(mp.re(mp.diff(g, mpf("1.37e-20"), order, h=step)))


def _of_one(name: str, f: Any, g: Any, *points: float) -> Iterator[Border]:
    for x in points:
        yield Border(name, f"{x:g}", lambda s, x=x: f(s + x), _by_mpmath(lambda s, x=x: g(mpf(x) + s)))


def _of_vector(name: str, f: Any, g: Any, *points: tuple[float, ...], lines: Any = None) -> Iterator[Border]:
    """Yield a function of a vector, along lines; `g` takes a list of numbers."""
    for x in points:
        for v in lines or _lines(len(x)):
            yield Border(
                name, f"{x} along {v}",
                lambda s, x=x, v=v: f(_point(x, v, s)),
                _by_mpmath(lambda s, x=x, v=v: g([mpf(a) + s * b for a, b in zip(x, v, strict=True)])),
            )  # fmt: skip


def _given(name: str, f: Any, x: tuple[float, ...], v: tuple[float, ...], *exact: float) -> Iterator[Border]:
    yield Border(name, f"{x} along {v}", lambda s: f(_point(x, v, s)), lambda: exact)


def _lines(n: int) -> list[tuple[float, ...]]:
    units = [tuple(float(i == j) for i in range(n)) for j in range(min(n, 2))]
    return [*units, tuple((-1.0) ** i * (1 + i / 2) for i in range(n))]


def _point(x: tuple[float, ...], v: tuple[float, ...], s: Tensor) -> Tensor:
    return torch.tensor(x, dtype=s.dtype) + s * torch.tensor(v, dtype=s.dtype)


def _product(xs: Any) -> Any:
    return math.prod(xs, start=mpf(1))


def _det(x: Tensor) -> Tensor:
    n = math.isqrt(x.numel())
    return torch.linalg.det(x.reshape(n, n))


def _exact_det(xs: Any) -> Any:
    """Expand a determinant: mpmath's elimination has no derivative at singular matrices."""
    n = math.isqrt(len(xs))
    rows = [list(xs[i * n : (i + 1) * n]) for i in range(n)]
    return _cofactors(rows)


def _cofactors(rows: Any) -> Any:
    if len(rows) == 1:
        return rows[0][0]
    minors = ([row[:j] + row[j + 1 :] for row in rows[1:]] for j in range(len(rows)))
    return sum((-1) ** j * rows[0][j] * _cofactors(minor) for j, minor in enumerate(minors))


def _logsum(xs: Any) -> Any:
    return mp.log(sum(map(mp.exp, xs)))


def _norm(p: float) -> Any:
    return lambda xs: sum(abs(x) ** mpf(p) for x in xs) ** (1 / mpf(p))


def _elementwise() -> Iterator[Border]:
    one = _of_one
    yield from one("sinc", torch.sinc, mp.sincpi, 0.0, 1.0, -1.0, 1e-4, 1e-2, 0.3, 5.5)
    yield from one("special.spherical_bessel_j0", special.spherical_bessel_j0, mp.sinc, 0.0, 1e-4, 1.0, -2.0, 5.0)
    yield from one("exp", torch.exp, mp.exp, 0.0, 1.0)
    yield from one("expm1", torch.expm1, mp.expm1, 0.0, 1e-9)
    yield from one("log1p", torch.log1p, mp.log1p, 0.0, 1e-9)
    yield from one("sigmoid", torch.sigmoid, lambda x: 1 / (1 + mp.exp(-x)), 0.0, 40.0, -40.0, -80.0)
    yield from one("nn.functional.softplus", F.softplus, lambda x: mp.log1p(mp.exp(x)), 0.0, 15.0, -40.0, -80.0)
    yield from one("nn.functional.logsigmoid", F.logsigmoid, lambda x: -mp.log1p(mp.exp(-x)), 0.0, 40.0, -40.0, -80.0)
    yield from one("tanh", torch.tanh, mp.tanh, 0.0, 1.0, 9.0)
    yield from one("nn.functional.silu", F.silu, lambda x: x / (1 + mp.exp(-x)), 0.0, 1.0, -80.0, 40.0)
    yield from one("nn.functional.mish", F.mish, lambda x: x * mp.tanh(mp.log1p(mp.exp(x))), 0.0, 1.0, -10.0, 40.0)
    yield from one("nn.functional.gelu", F.gelu, lambda x: x * mp.ncdf(x), 0.0, 1.0, -5.0, 9.0)
    yield from one("nn.functional.tanhshrink", F.tanhshrink, lambda x: x - mp.tanh(x), 0.0, 1e-3, 1.0)
    yield from one("lgamma", torch.lgamma, lambda x: mp.log(abs(mp.gamma(x))), 1.0, 2.0, 0.5, -0.5, 50.0)
    yield from one("digamma", torch.digamma, mp.digamma, 1.0, 2.0, 0.5, -0.5)
    yield from one("polygamma", partial(torch.polygamma, 1), partial(mp.polygamma, 1), 1.0, 2.0, 0.5)
    yield from one("mvlgamma", lambda x: torch.mvlgamma(x, 3), _multivariate_gamma, 2.0, 3.0)
    yield from one("erf", torch.erf, mp.erf, 0.0, 1.0, 9.0)
    yield from one("erfc", torch.erfc, mp.erfc, 0.0, 1.0, 9.0)
    yield from one("special.erfcx", special.erfcx, lambda x: mp.exp(x * x) * mp.erfc(x), 0.0, 1.0, 9.0, -2.0)
    yield from one("erfinv", torch.erfinv, mp.erfinv, 0.0, 0.5, -0.9)
    yield from one("special.ndtr", special.ndtr, mp.ncdf, 0.0, 1.0, -9.0)
    yield from one("special.log_ndtr", special.log_ndtr, lambda x: mp.log(mp.ncdf(x)), 0.0, 1.0, -5.0, 8.0)
    yield from one("special.ndtri", special.ndtri, lambda x: mp.sqrt(2) * mp.erfinv(2 * x - 1), 0.5, 0.1, 0.9)
    yield from one("special.entr", special.entr, lambda x: -x * mp.log(x), 1.0, 0.5)
    yield from one("logit", torch.logit, lambda x: mp.log(x / (1 - x)), 0.5, 0.1)
    for name in ("asin", "atan", "asinh", "atanh", "tan", "sin", "cos", "sinh", "cosh", "acos"):
        yield from one(name, getattr(torch, name), getattr(mp, name), 0.0, 0.5)
    yield from one("acosh", torch.acosh, mp.acosh, 2.0)
    yield from one("reciprocal", torch.reciprocal, lambda x: 1 / x, 1.0, -2.0)
    yield from one("rsqrt", torch.rsqrt, lambda x: x ** mpf("-0.5"), 1.0, 4.0)
    yield from one("exp2", torch.exp2, lambda x: mpf(2) ** x, 0.0, 1.0)
    for kind in ("log", "log2", "log10"):
        base = {"log": mp.e, "log2": 2, "log10": 10}[kind]
        yield from one(kind, getattr(torch, kind), lambda x, b=base: mp.log(x) / mp.log(b), 1.0)


def _multivariate_gamma(x: Any) -> Any:
    return 3 * mp.log(mp.pi) / 2 + sum(mp.loggamma(x - mpf(i) / 2) for i in range(3))


def _powers() -> Iterator[Border]:
    for k in range(4):
        yield from _of_one(f"x**{k}", lambda x, k=k: x**k, lambda x, k=k: x**k, 0.0, -1.0)
        tensor = partial(torch.full_like, fill_value=k)
        yield from _of_one(f"x**tensor({k})", lambda x, t=tensor: x ** t(x.detach()), lambda x, k=k: x**k, 0.0, -1.0)
    yield from _of_vector("pow", lambda x: x[0] ** x[1], lambda x: x[0] ** x[1], (2.0, 3.0), (1.0, 0.0), (0.5, -1.0))
    yield from _given("pow", lambda x: (torch.zeros_like(x) ** x)[0], (2.0,), (1.0,), 0.0, 0.0, 0.0)
    yield from _given(
        "pow", lambda x: (torch.zeros_like(x) ** x)[0], (0.0,), (1.0,), 0.0, 0.0, 0.0
    )  # torch's convention
    yield from _given("pow", lambda x: 0.0 ** x[0], (2.0,), (1.0,), 0.0, 0.0, 0.0)


def _bessel() -> Iterator[Border]:
    small, positive = (0.0, -1.0, 1e-3, 1.0, 7.0), (1e-1, 1.0, 7.0)
    for n in (0, 1):
        yield from _of_one(f"special.bessel_j{n}", getattr(special, f"bessel_j{n}"), partial(mp.besselj, n), *small)
        yield from _of_one(f"special.bessel_y{n}", getattr(special, f"bessel_y{n}"), partial(mp.bessely, n), *positive)
        for prefix in ("i", "modified_bessel_i"):
            yield from _of_one(f"special.{prefix}{n}", getattr(special, f"{prefix}{n}"), partial(mp.besseli, n), *small)
        yield from _of_one(
            f"special.i{n}e",
            getattr(special, f"i{n}e"),
            lambda x, n=n: mp.besseli(n, x) * mp.exp(-abs(x)),
            1.0,
            -2.0,
            20.0,
        )
        k = partial(mp.besselk, n)
        yield from _of_one(f"special.modified_bessel_k{n}", getattr(special, f"modified_bessel_k{n}"), k, *positive)
        scaled = getattr(special, f"scaled_modified_bessel_k{n}")
        yield from _of_one(f"special.scaled_modified_bessel_k{n}", scaled, lambda x, k=k: mp.exp(x) * k(x), *positive)


def _polynomials() -> Iterator[Border]:
    families = {
        "chebyshev_polynomial_t": mp.chebyt, "chebyshev_polynomial_u": mp.chebyu, "hermite_polynomial_h": mp.hermite,
        "laguerre_polynomial_l": lambda n, x: mp.laguerre(n, 0, x), "legendre_polynomial_p": mp.legendre,
        "hermite_polynomial_he": lambda n, x: mpf(2) ** (-mpf(n) / 2) * mp.hermite(n, x / mp.sqrt(2)),
        "chebyshev_polynomial_v": lambda n, x: mp.chebyu(n, x) - (mp.chebyu(n - 1, x) if n else 0),
        "chebyshev_polynomial_w": lambda n, x: mp.chebyu(n, x) + (mp.chebyu(n - 1, x) if n else 0),
        "shifted_chebyshev_polynomial_t": lambda n, x: mp.chebyt(n, 2 * x - 1),
        "shifted_chebyshev_polynomial_u": lambda n, x: mp.chebyu(n, 2 * x - 1),
    }  # fmt: skip
    for (name, g), n in itertools.product(families.items(), (0, 1, 2, 5)):
        polynomial = partial(getattr(special, name), n=n)
        yield from _of_one(f"special.{name}", polynomial, partial(g, n), 0.0, 0.3, 1.0, -1.0)


def _of_two() -> Iterator[Border]:
    far = ((0.0, 0.0), (1.0, -40.0), (-2000.0, 0.0), (0.0, 2000.0))
    yield from _of_vector("logaddexp", lambda x: torch.logaddexp(x[0], x[1]), _logsum, *far)
    yield from _of_vector(
        "logaddexp2", lambda x: torch.logaddexp2(x[0], x[1]), lambda x: mp.log(mpf(2) ** x[0] + mpf(2) ** x[1], 2), *far
    )
    yield from _of_vector(
        "xlogy", lambda x: torch.xlogy(x[0], x[1]), lambda x: x[0] * mp.log(x[1]), (0.0, 1.0), (0.0, 2.0), (1.0, 2.0)
    )
    yield from _of_vector(
        "special.xlog1py",
        lambda x: special.xlog1py(x[0], x[1]),
        lambda x: x[0] * mp.log1p(x[1]),
        (0.0, 0.0),
        (1.0, 2.0),
    )
    yield from _of_vector(
        "atan2", lambda x: torch.atan2(x[0], x[1]), lambda x: mp.atan2(x[0], x[1]), (0.0, 1.0), (1.0, 0.0), (1.0, -2.0)
    )
    yield from _given("atan2", lambda x: torch.atan2(x[0], x[1]), (0.0, 0.0), (1.0, 2.0), 0.0, 0.0, 0.0)
    yield from _of_vector(
        "hypot", lambda x: torch.hypot(x[0], x[1]), lambda x: mp.hypot(x[0], x[1]), (0.0, 1.0), (3.0, 4.0)
    )
    yield from _of_one("special.zeta", lambda x: special.zeta(3.0, x), lambda x: mp.zeta(3, x), 1.0, 2.5)
    for a in (1, 2, 3):
        full = partial(torch.full_like, fill_value=a)
        lower = partial(mp.gammainc, a, 0, regularized=True)
        yield from _of_one("igamma", lambda x, f=full: torch.igamma(f(x.detach()), x), lower, 1.0, 2.5)
        yield from _of_one(
            "igammac", lambda x, f=full: torch.igammac(f(x.detach()), x), lambda x, g=lower: 1 - g(x), 1.0, 2.5
        )
    yield from _given(
        "igamma", lambda x: torch.igamma(torch.ones(1, dtype=x.dtype), x)[0], (0.0,), (1.0,), 1.0, -1.0, 1.0
    )


def _of_vectors() -> Iterator[Border]:
    zeros = ((0.0, 1.0, 2.0), (0.0, 0.0, 2.0), (0.0, 0.0, 0.0), (2.0,), (0.0,), (1.0, 2.0, 3.0, 0.0, 5.0))
    yield from _of_vector("prod", torch.prod, _product, *zeros)
    yield from _of_vector("cumprod", lambda x: x.cumprod(0).sum(), _running_products, *zeros)
    wide = ((-120.0, 0.0, 1.0), (0.0, 0.0, 0.0), (80.0, -80.0, 0.0), (3.0,))
    yield from _of_vector("logcumsumexp", lambda x: torch.logcumsumexp(x, 0).sum(), _running_logsums, *wide)
    yield from _of_vector("logsumexp", lambda x: torch.logsumexp(x, 0), _logsum, *wide)
    yield from _of_vector("softmax", lambda x: torch.softmax(x, 0)[0], lambda x: mp.exp(x[0] - _logsum(x)), *wide)
    yield from _of_vector("log_softmax", lambda x: torch.log_softmax(x, 0)[0], lambda x: x[0] - _logsum(x), *wide)
    for p in (2, 3, 4, 2.5):
        norm = partial(torch.linalg.vector_norm, ord=p)
        yield from _of_vector("linalg.vector_norm", norm, _norm(p), (1.0, -2.0, 0.5))
        yield from _of_vector("linalg.vector_norm", norm, _norm(p), (0.0, 1.0, 2.0), lines=[(0.0, 1.0, -1.0)])
        yield from _given("linalg.vector_norm", norm, (0.0, 0.0), (0.0, 1.0), 0.0, 0.0, 0.0)
    yield from _of_vector("linalg.vector_norm", torch.linalg.vector_norm, _norm(2), (0.0, 1.0, 2.0))
    yield from _of_vector("std", torch.std, _deviation, (1.0, 2.0, 4.0))
    yield from _given("std", torch.std, (1.0, 1.0), (0.0, 1.0), 0.0, 0.0, 0.0)
    kinks = {
        "relu": F.relu,
        "abs": torch.abs,
        "nn.functional.hardtanh": lambda x: F.hardtanh(x - 1),
        "sign": torch.sign,
    }
    for name, f in kinks.items():
        yield from _given(name, lambda x, f=f: f(x)[0], (0.0,), (1.0,), 0.0, 0.0, 0.0)
    yield from _given("amax", torch.amax, (1.0, 1.0, 0.0), (1.0, 0.0, 0.0), 0.5, 0.0, 0.0)
    yield from _given("maximum", lambda x: torch.maximum(x[0], x[1]), (1.0, 1.0), (1.0, 0.0), 0.5, 0.0, 0.0)
    weights = partial(F.embedding, torch.tensor([0, 1, 1, 2]), padding_idx=1)
    padded = (1.0, 2.0, 3.0)
    yield from _given(
        "nn.functional.embedding", lambda x: (weights(x[:, None]) ** 2).sum(), padded, (0.0, 1.0, 0.0), 0, 0, 0
    )
    yield from _given(
        "nn.functional.embedding", lambda x: (weights(x[:, None]) ** 2).sum(), padded, (1.0, 1.0, 0.0), 2, 2, 0
    )
    yield from _of_vector(
        "linspace", lambda x: (torch.linspace(x[0], x[1], 5, dtype=x.dtype) ** 2).sum(), _squares, (0.0, 1.0)
    )


def _running_products(xs: Any) -> Any:
    return sum(_product(xs[: i + 1]) for i in range(len(xs)))


def _running_logsums(xs: Any) -> Any:
    return sum(_logsum(xs[: i + 1]) for i in range(len(xs)))


def _deviation(xs: Any) -> Any:
    mean = sum(xs) / len(xs)
    return mp.sqrt(sum((x - mean) ** 2 for x in xs) / (len(xs) - 1))


def _squares(x: Any) -> Any:
    return sum((x[0] + (x[1] - x[0]) * i / mpf(4)) ** 2 for i in range(5))


def _determinants() -> Iterator[Border]:
    rank = {
        "zero": (0.0,) * 9, "rank 1": (1.0, 2.0, 4.0, 2.0, 4.0, 8.0, 1.0, 2.0, 4.0), "triangular": (1.0, 0, 0, 2, 0, 0, 3, 4, 5),
        "identity": (1.0, 0, 0, 0, 1, 0, 0, 0, 1), "singular 2": (1.0, 2.0, 2.0, 4.0), "one": (0.0,),
    }  # fmt: skip
    lines = {
        n: [tuple(math.sin(1 + i) for i in range(n)), tuple(float(i % 3) for i in range(n))] for n in (1, 4, 9, 25)
    }
    for x in rank.values():
        yield from _of_vector("linalg.det", _det, _exact_det, x, lines=lines[len(x)])
    for kept in (2, 3, 4, 5):  # of five rows
        x = tuple(float(i == j and i < kept) for i in range(5) for j in range(5))
        yield from _of_vector("linalg.det", _det, _exact_det, x, lines=lines[25])


def _of_far(name: str, f: Any) -> Iterator[Border]:
    """Yield the norm of (3, 4) times huge and tiny factors: cubes of it overflow and underflow."""
    for m in (1e120, 1e-120):
        first, second = 0.6, 0.128 / m  # r r' = x v and r'^2 + r r'' = v v
        yield from _given(name, f, (3 * m, 4 * m), (1.0, 0.0), first, second, -3 * first * second / (5 * m))


def _norms() -> Iterator[Border]:
    norms = {
        "linalg.vector_norm": torch.linalg.vector_norm,
        "linalg.matrix_norm": lambda x: torch.linalg.matrix_norm(x[None]),
        "nn.functional.pairwise_distance": lambda x: F.pairwise_distance(x[None], x[None] * 0, eps=0.0)[0],
        "dist": lambda x: torch.dist(x, x * 0),
        "cdist": lambda x: torch.cdist(x[None], x[None] * 0).sum(),
        "nn.functional.pdist": lambda x: F.pdist(torch.stack([x, x * 0])).sum(),
        "nn.functional.triplet_margin_loss": lambda x: F.triplet_margin_loss(x, x * 0, x, 1e-9, eps=0.0),
        "abs of complex": lambda x: torch.complex(x[0], x[1]).abs(),
        "linalg.vector_norm of complex": lambda x: torch.linalg.vector_norm(torch.complex(x[:1], x[1:])),
        "hypot": lambda x: torch.hypot(x[0], x[1]),
    }
    for name, f in norms.items():
        yield from _of_far(name, f)
        yield from _of_vector(name, f, _norm(2), (3.0, 4.0), (0.0, 2.0))
        if name != "hypot":  # NaN at the origin in torch, from the first derivative on
            yield from _given(name, f, (0.0, 0.0), (1.0, -2.0), 0.0, 0.0, 0.0)
    most = lambda x: torch.cdist(x[None], x[None] * 0, p=torch.inf).sum()  # noqa: E731
    yield from _given("cdist", most, (1.0, 1.0, 0.0), (1.0, 0.0, 0.0), 0.5, 0.0, 0.0)
    square = lambda x: (F.normalize(x, dim=0) ** 2)[0]  # noqa: E731
    yield from _of_vector("nn.functional.normalize", square, lambda x: x[0] ** 2 / (x[0] ** 2 + x[1] ** 2), (3.0, 4.0))
    yield from _given("nn.functional.normalize", square, (0.0, 0.0), (1e-12, 0.0), 0.0, 2.0, 0.0)
    scaled = lambda x: torch.renorm(x[None], 2, 0, 1.0)[0, 0]  # noqa: E731
    unit = lambda x: x[0] / (mp.sqrt(x[0] ** 2 + x[1] ** 2) + mpf("1e-7"))  # noqa: E731
    yield from _of_vector("renorm", scaled, unit, (3.0, 4.0))
    yield from _given("renorm", scaled, (0.0, 0.0), (1.0, -2.0), 1.0, 0.0, 0.0)
    both = lambda x: sum(torch.std_mean(x))  # noqa: E731
    yield from _of_vector("std_mean", both, lambda xs: _deviation(xs) + sum(xs) / len(xs), (1.0, 2.0, 4.0))
    yield from _given("std_mean", both, (1.0, 1.0), (0.0, 1.0), 0.5, 0.0, 0.0)
    yield from _given("angle of complex", lambda x: torch.complex(x[0], x[1]).angle(), (0.0, 0.0), (1.0, 2.0), 0, 0, 0)
    yield from _given("sgn of complex", lambda x: torch.complex(x[0], x[1]).sgn().real, (0.0, 0.0), (1.0, 2.0), 0, 0, 0)


def _products() -> Iterator[Border]:
    zeros, there = ((0.0, 1.0, 2.0), (0.0, 0.0, 2.0), (0.0, 0.0, 0.0)), torch.tensor([1, 1, 1])
    products = {
        "scatter_reduce": lambda x: torch.ones_like(x).scatter_reduce(0, there, x, "prod", include_self=False)[1],
        "index_reduce": lambda x: torch.ones_like(x).index_reduce(0, there, x, "prod")[1],
    }
    for name, f in products.items():
        yield from _of_vector(name, f, _product, *zeros)
    powers = lambda xs: sum(1 + x + x**2 + x**3 for x in xs)  # noqa: E731
    yield from _of_vector("linalg.vander", lambda x: torch.linalg.vander(x, N=4).sum(), powers, *zeros[1:])
    yield from _of_vector("vander", lambda x: torch.vander(x, 4).sum(), powers, *zeros[1:])
    complex_det = lambda x: torch.linalg.det(torch.complex(x, x.flip(0)).reshape(2, 2)).imag  # noqa: E731
    exact = lambda x: mp.im(_exact_det([mp.mpc(a, b) for a, b in zip(x, x[::-1], strict=True)]))  # noqa: E731
    yield from _of_vector("linalg.det of complex", complex_det, exact, (0.0,) * 4, (1.0, 2.0, 2.0, 4.0))
    power = lambda x: (torch.complex(x[0], x[1]) ** x[2]).real  # noqa: E731
    yield from _of_vector("pow of complex", power, lambda x: mp.re(mp.mpc(x[0], x[1]) ** x[2]), (1.0, -2.0, 0.7))


def _spectra() -> Iterator[Border]:
    pair = lambda x: mp.sqrt(((x[0] - x[3]) / 2) ** 2 + x[1] * x[2]) + (x[0] + x[3]) / 2  # noqa: E731
    symmetric, general = (1.0, 2.0, 2.0, -1.0), (1.0, 2.0, 0.5, -1.0)
    lines = [(1.0, 0.5, 0.5, 2.0), (0.0, 1.0, 1.0, 0.0)]
    largest = lambda x: torch.linalg.eigvalsh(x.reshape(2, 2))[1]  # noqa: E731
    yield from _of_vector("linalg.eigvalsh", largest, pair, symmetric, lines=lines)
    yield from _of_vector(
        "linalg.eigh", lambda x: torch.linalg.eigh(x.reshape(2, 2))[0][1], pair, symmetric, lines=lines
    )
    yield from _of_vector("linalg.eig", lambda x: torch.linalg.eig(x.reshape(2, 2))[0].real.amax(), pair, general)
    yield from _of_vector("linalg.eigvals", lambda x: torch.linalg.eigvals(x.reshape(2, 2)).real.amax(), pair, general)
    sizes = lambda x: torch.linalg.slogdet(torch.complex(x, x.flip(0)).reshape(2, 2))[1]  # noqa: E731
    exact = lambda x: mp.log(abs(_exact_det([mp.mpc(a, b) for a, b in zip(x, x[::-1], strict=True)])))  # noqa: E731
    yield from _of_vector("linalg.slogdet of complex", sizes, exact, general)
    reflected = lambda x: (torch.linalg.householder_product(x[:6].reshape(3, 2), x[6:]) ** 2)[0].sum()  # noqa: E731
    yield from _of_vector(
        "linalg.householder_product", reflected, _reflected, (0.0, 0.0, 1.0, 0.0, 2.0, -1.0, 0.5, 0.7)
    )


def _reflected(x: Any) -> Any:
    """The first row of (I - s v v^T) (I - t w w^T), of the first two columns, squared and summed."""
    v, w, s, t = (1, x[2], x[4]), (0, 1, x[5]), x[6], x[7]
    row = [(1 - s * v[0] * v[0]), -s * v[0] * v[1], -s * v[0] * v[2]]
    along = sum(a * b for a, b in zip(row, w, strict=True))
    return sum((row[i] - t * along * w[i]) ** 2 for i in range(2))


def _standardized() -> Iterator[Border]:
    x = (1.0, -2.0, 0.5, 4.0)
    norms = {
        "nn.functional.layer_norm": lambda x: F.layer_norm(x, (4,))[0],
        "nn.functional.batch_norm": lambda x: F.batch_norm(x[:, None], None, None, training=True)[0, 0],
        "nn.functional.instance_norm": lambda x: F.instance_norm(x[None, None])[0, 0, 0],
        "nn.functional.group_norm": lambda x: F.group_norm(x[None, :, None], 1)[0, 0, 0],
    }
    for name, f in norms.items():
        yield from _of_vector(name, f, _first_standardized, x)
    loss = lambda w: F.cross_entropy(torch.eye(3, dtype=w.dtype), torch.tensor([0, 1, 1]), weight=w)  # noqa: E731
    yield from _of_vector("nn.functional.cross_entropy", loss, _weighted_loss, (1.0, 2.0, 3.0), (0.0, 1.0, 2.0))


def _first_standardized(x: Any) -> Any:
    mean = sum(x) / len(x)
    return (x[0] - mean) / mp.sqrt(sum((a - mean) ** 2 for a in x) / len(x) + mpf(1e-5))


def _weighted_loss(w: Any) -> Any:
    total = mp.log(mp.e + 2)
    return (w[0] * (total - 1) + w[1] * (total - 1) + w[1] * total) / (w[0] + 2 * w[1])


def borders() -> list[Border]:
    """List all problems."""
    families = (_elementwise, _powers, _bessel, _polynomials, _of_two, _of_vectors, _determinants)
    families += (_norms, _products, _spectra, _standardized)
    return [border for family in families for border in family()]
