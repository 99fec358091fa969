"""Random programs on special values: ±0, ±inf, NaN, denormal and huge numbers, empty tensors, whole ranges of integers.

Many programs share one compiled function: each is a chain of a few operations, which ends in an output of its own.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import torchpure as tp

FLOATS, INTS, BOOLS = "floats", "ints", "bools"
TINY = 1e-40  # denormal in float32
SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    float("inf"),
    -float("inf"),
    float("nan"),
    TINY,
    -TINY,
    3e38,
    -3e38,
    0.5,
    -2.5,
    1e20,
    7.0,
]
SPECIAL_INTS = [0, 1, -1, 2, -3, 7, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 5, 100]


class Operation(NamedTuple):
    """An operation, the kinds of its arguments, and the kind of its result."""

    name: str
    run: Callable[..., Tensor]
    takes: tuple[str, ...]
    gives: str


def _last(x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """A reduction over the last dimension; the result has the shape of its argument again."""
    return run(x).unsqueeze(-1).expand(x.shape)


def words(text: str) -> list[str]:
    return text.split()


F, I, B = (FLOATS,), (INTS,), (BOOLS,)  # noqa: E741
UNARY = words(
    "abs neg sign sgn sqrt rsqrt reciprocal exp expm1 exp2 log log1p log2 log10 sin cos tan tanh sinh cosh asin acos atan "
    "asinh acosh atanh erf erfc lgamma digamma floor ceil round trunc frac relu sigmoid square sinc isnan isinf isfinite "
    "signbit nan_to_num logical_not erfinv positive deg2rad i0"
)
BINARY = words(
    "add sub mul div maximum minimum fmax fmin atan2 hypot copysign pow logaddexp logaddexp2 eq ne lt le gt ge nextafter "
    "xlogy heaviside true_divide ldexp logical_and logical_or logical_xor"
)
REMAINDERS = ["fmod", "remainder", "floor_divide"]
INTEGER_BINARY = words("add sub mul maximum minimum bitwise_and bitwise_or bitwise_xor eq lt ge gcd")
REDUCTIONS = words("sum prod mean amax amin var std logsumexp norm argmax argmin all any median nansum cumsum cumprod")
BOOLEAN = {"isnan", "isinf", "isfinite", "signbit", "logical_not", "eq", "ne", "lt", "le", "gt", "ge", "logical_and",
           "logical_or", "logical_xor", "all", "any"}  # fmt: skip
SHAPED = {"cumsum", "cumprod"}
SUMS = {"sum", "mean", "nansum", "cumsum"}


def _tame(x: Tensor) -> Tensor:
    """Shrink huge numbers, whose sums overflow in one order and not in another; inf and NaN stay."""
    return torch.where(x.isfinite() & (x.abs() > 1e30), x.sign() * 1e15, x)


def _small(x: Tensor) -> Tensor:
    """Shrink large numbers before a sum: where they cancel, the order of a sum decides the result. inf and NaN stay."""
    return torch.where(x.isfinite() & (x.abs() > 64), x.sign() * 64, x)


def _with_a_sign(x: Tensor) -> Tensor:
    """Replace NaN where its sign bit is read: no operation defines that bit, so no compiled program can promise it."""
    return torch.where(x.isnan(), 1.0, x)


SIGNS = {
    "signbit": lambda x: torch.signbit(_with_a_sign(x)),
    "copysign": lambda x, y: torch.copysign(x, _with_a_sign(y)),
}


def _elementwise(name: str) -> Callable[..., Tensor]:
    return SIGNS.get(name) or getattr(torch, name)


def _without_denormals(y: Tensor) -> Tensor:
    """Replace denormal divisors: torch's kernels give NaN for some remainders by them, and compiled programs are right."""
    return torch.where((y != 0) & (y.abs() < 1e-30), 1.0, y).to(y.dtype)


def _remainder(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    run = getattr(torch, name)
    return lambda x, y: run(_tame(x), _without_denormals(y))


def _reduction(name: str) -> Callable[[Tensor], Tensor]:
    torchs, shrink = getattr(torch, name), _small if name in SUMS else _tame

    def run(x: Tensor, dim: int) -> Tensor:
        return torchs(shrink(x), dim)

    if name in SHAPED:
        return lambda x: run(x, -1)
    if name == "median":
        return lambda x: _last(x, lambda y: y.median(-1).values)
    return lambda x: _last(x, lambda y: run(y, -1))


OPERATIONS = [
    *(Operation(name, _elementwise(name), F, BOOLS if name in BOOLEAN else FLOATS) for name in UNARY),
    *(Operation(name, _elementwise(name), F * 2, BOOLS if name in BOOLEAN else FLOATS) for name in BINARY),
    *(Operation(name, _remainder(name), F * 2, FLOATS) for name in REMAINDERS),
    *(Operation(name, getattr(torch, name), I * 2, BOOLS if name in BOOLEAN else INTS) for name in INTEGER_BINARY),
    *(
        Operation(name, _reduction(name), F, INTS if name[:3] == "arg" else BOOLS if name in BOOLEAN else FLOATS)
        for name in REDUCTIONS
    ),
    Operation("where", torch.where, (BOOLS, FLOATS, FLOATS), FLOATS),
    Operation("masked_fill", lambda x, m: x.masked_fill(m, -float("inf")), (FLOATS, BOOLS), FLOATS),
    Operation("softmax", lambda x: torch.softmax(x, -1), F, FLOATS),
    Operation("log_softmax", lambda x: torch.log_softmax(x, -1), F, FLOATS),
    Operation("clamp", lambda x: x.clamp(-1.0, 2.0), F, FLOATS),
    Operation("clamp of tensors", torch.clamp, F * 3, FLOATS),
    Operation("lerp", torch.lerp, F * 3, FLOATS),
    Operation("addcmul", lambda x, y, z: torch.addcmul(x, y, z, value=0.5), F * 3, FLOATS),
    Operation("addcdiv", lambda x, y, z: torch.addcdiv(x, y, z, value=-2.0), F * 3, FLOATS),
    Operation("gelu", lambda x: torch.nn.functional.gelu(x.clamp(-1e30, 1e30)), F, FLOATS),  # torch: NaN at inf
    Operation("silu", torch.nn.functional.silu, F, FLOATS),
    Operation("softplus", torch.nn.functional.softplus, F, FLOATS),
    Operation("elu", torch.nn.functional.elu, F, FLOATS),
    Operation("leaky_relu", torch.nn.functional.leaky_relu, F, FLOATS),
    Operation("hardtanh", torch.nn.functional.hardtanh, F, FLOATS),
    Operation("logsigmoid", torch.nn.functional.logsigmoid, F, FLOATS),
    Operation("sort", lambda x: x.sort(-1).values, F, FLOATS),
    Operation("flip", lambda x: x.flip(-1), F, FLOATS),
    Operation("roll", lambda x: x.roll(1, -1), F, FLOATS),
    Operation("cummax", lambda x: x.cummax(-1).values, F, FLOATS),
    Operation("to float", lambda x: x.to(torch.float32), I, FLOATS),
    Operation("bool to float", lambda x: x.to(torch.float32), B, FLOATS),
    Operation("bool to int", lambda x: x.to(torch.int64), B, INTS),
    Operation("half", lambda x: x.to(torch.float16).to(x.dtype), F, FLOATS),
    Operation("bfloat16", lambda x: x.to(torch.bfloat16).to(x.dtype), F, FLOATS),
    Operation("shift", lambda x: x << 2, I, INTS),
    Operation("int abs", torch.abs, I, INTS),
    Operation("int sign", torch.sign, I, INTS),
    Operation("int sum", lambda x: _last(x, lambda y: y.sum(-1)), I, INTS),
    Operation("int cumsum", lambda x: x.cumsum(-1), I, INTS),
    Operation("int power", lambda x: x**2, I, INTS),
    Operation("float power", lambda x: x**3, F, FLOATS),
    Operation("power of half", lambda x: x**0.5, F, FLOATS),
    Operation("number to a power", lambda x: 2.0**x, F, FLOATS),
    Operation("number minus", lambda x: 1.0 - x, F, FLOATS),
    Operation("division by a number", lambda x: x / 3.0, F, FLOATS),
    Operation("number divided", lambda x: 1.0 / x, F, FLOATS),
    Operation("index_add", lambda x: x.index_add(-1, torch.zeros(x.shape[-1], dtype=torch.int64), x, alpha=-1.0), F, FLOATS),
    Operation("bool index_add", lambda x: x.index_add(-1, torch.zeros(x.shape[-1], dtype=torch.int64), x, alpha=-1), B, BOOLS),
    Operation("scatter_add", lambda x: x.scatter_add(-1, torch.zeros(x.shape, dtype=torch.int64), x), F, FLOATS),
    Operation("bool sum", lambda x: _last(x, lambda y: y.sum(-1)), B, INTS),
    Operation("bool cumsum", lambda x: x.cumsum(-1), B, INTS),
    Operation("matmul", lambda x: x @ x.transpose(-1, -2) @ x, F, FLOATS),
]  # fmt: skip
HALVES = {"half", "bfloat16"}  # programs with these are compiled by inductor, all others by the native generator
NATIVE = [one for one in OPERATIONS if one.name not in HALVES]


def _without_denormal_arguments(one: Operation) -> Operation:
    """inductor's vector function of expm1 takes denormal numbers to zero."""
    if one.name not in {"expm1", "elu"}:
        return one
    return one._replace(run=lambda x: one.run(torch.where(x.abs() < 1e-30, 0.0, x)))


INDUCTOR = [_without_denormal_arguments(one) for one in OPERATIONS]
SHAPES = [(4,), (3, 5), (2, 1), (0,), (2, 0), (1,), (17,)]


class Case(NamedTuple):
    """Inputs, and a program that returns the result of each chain; `names` says what each chain does."""

    inputs: tuple[Tensor, ...]
    run: Callable[..., tuple[Tensor, ...]]
    names: list[str]


def values(rng: random.Random, shape: tuple[int, ...], kind: str, dtype: torch.dtype) -> Tensor:
    count = torch.Size(shape).numel()
    if kind == FLOATS:
        return torch.tensor([rng.choice([*SPECIAL, rng.gauss(0, 3)]) for _ in range(count)], dtype=dtype).reshape(shape)
    if kind == INTS:
        return torch.tensor([rng.choice(SPECIAL_INTS) for _ in range(count)], dtype=torch.int64).reshape(shape)
    return torch.tensor([rng.random() < 0.5 for _ in range(count)], dtype=torch.bool).reshape(shape)


def case(seed: int, chains: int = 40) -> Case:
    """Make a random case."""
    rng = random.Random(seed)
    shape, dtype = rng.choice(SHAPES), rng.choice([torch.float32, torch.float32, torch.float64])
    operations = INDUCTOR if rng.random() < 0.2 else NATIVE
    kinds = [FLOATS, FLOATS, INTS, BOOLS]
    inputs = tuple(values(rng, shape, kind, dtype) for kind in kinds)
    plans = [steps for steps in (plan(rng, kinds, operations) for _ in range(chains)) if _runs(steps, inputs)]

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        return tuple(evaluate(steps, given) for steps in plans)

    return Case(inputs, run, [describe(steps) for steps in plans])


def _runs(steps: "Steps", inputs: tuple[Tensor, ...]) -> bool:
    """Return whether torch runs a program: it refuses the largest number of nothing, and products of vectors."""
    try:
        evaluate(steps, inputs)
    except (RuntimeError, IndexError):
        return False
    return True


Steps = list[tuple[Operation, list[int]]]  # each takes inputs (below 4) or earlier results (from 4 on)


def plan(rng: random.Random, kinds: list[str], operations: list[Operation]) -> Steps:
    steps: Steps = []
    known = list(kinds)
    for _ in range(rng.choice([1, 1, 2, 3])):
        operation = rng.choice(operations)
        places = [[at for at, kind in enumerate(known) if kind == wanted] for wanted in operation.takes]
        steps.append((operation, [rng.choice(place[-2:] if rng.random() < 0.7 else place) for place in places]))
        known.append(operation.gives)
    return steps


def evaluate(steps: Steps, given: tuple[Tensor, ...]) -> Tensor:
    found = list(given)
    for operation, arguments in steps:
        found.append(operation.run(*[found[at] for at in arguments]))
    return found[-1]


def describe(steps: Steps) -> str:
    return "; ".join(f"{number + 4} = {one.name}({', '.join(map(str, at))})" for number, (one, at) in enumerate(steps))


def in_scan(run: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """The program in the body of a loop of two iterations."""
    return lambda *given: tp.scan(lambda carry, _: (carry, run(*carry)), given, length=2)[1]
