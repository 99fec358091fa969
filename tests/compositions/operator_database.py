"""Every operator of torch's own database in every composition of transforms, against finite differences and loops.

What can come out for an operator and a composition:

- `right`: equal to finite differences or to a loop, in float64
- `as torch`: finite differences disagree, and torch's plain autograd says what we say (a kink, a subgradient, a convention)
- `kink`: finite differences have no limit there
- `refused`: an error
- `wrong`: anything else
"""

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db

import torchpure as tp
from torchpure.errors import ImpureError

D = torch.float64
SAMPLES, LARGEST, MEMBERS = 3, 1500, 3


class Problem(NamedTuple):
    """A function of float64 tensors that gives float64 tensors, and where to evaluate it."""

    fn: Callable[..., tuple[Tensor, ...]]
    at: tuple[Tensor, ...]


def operators() -> dict[str, Any]:
    """Name the operators that have a derivative in float64."""
    chosen = [op for op in op_db if op.supports_autograd and D in op.supported_backward_dtypes("cpu")]
    return {op.formatted_name: op for op in chosen}


def problems(op: Any) -> Iterator[Problem]:
    """Make functions of an operator's samples; what draws, writes to its arguments or has no derivative is left out."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        found = (
            problem for sample in op.sample_inputs("cpu", D, requires_grad=True) for problem in _problem(op, sample)
        )
        try:
            chosen = list(itertools.islice(found, SAMPLES))
        except RuntimeError:  # a sample that torch cannot make on this device
            chosen = []
    yield from chosen


def _problem(op: Any, sample: Any) -> list[Problem]:
    operation = op.get_op()
    leaves, structure = tp.tree.flatten((sample.input, sample.args, sample.kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
    leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    at = tuple(leaves[i].clone() for i in places)
    if not at or any(leaf.dtype != D for leaf in at):
        return []

    def fn(*values: Tensor) -> tuple[Tensor, ...]:
        filled = list(leaves)
        for i, value in zip(places, values, strict=True):
            filled[i] = value
        first, args, kwargs = tp.tree.unflatten(structure, filled)
        out = sample.output_process_fn_grad(op.gradcheck_wrapper(operation, first, *args, **kwargs))
        return tuple(leaf for leaf in tp.tree.leaves(out) if isinstance(leaf, Tensor) and leaf.dtype == D)

    if sum(leaf.numel() for leaf in at) > LARGEST or not all(leaf.numel() for leaf in at):
        return []
    try:
        out = tp.pure(fn)(*at)
    except (ImpureError, NotImplementedError):  # it draws, or writes to an argument; sparse results
        return []
    small = 0 < sum(leaf.numel() for leaf in out) <= LARGEST and all(leaf.isfinite().all() for leaf in out)
    return [Problem(fn, at)] if small else []


def like(tensors: Any, salt: int) -> tuple[Tensor, ...]:
    """Make fixed directions of these shapes."""
    keys = tp.random.split(tp.random.key(salt), len(tensors))
    return tuple(tp.random.normal(k, t.shape, dtype=D) for k, t in zip(keys, tensors, strict=True))


def dot(one: Any, two: Any) -> Tensor:
    """Return the product of two lists of tensors as vectors."""
    return sum(((a * b).sum() for a, b in zip(one, two, strict=True)), torch.zeros((), dtype=D))


class Directions(NamedTuple):
    """Fixed directions for a problem: two among the arguments, one among the values."""

    v: tuple[Tensor, ...]
    u: tuple[Tensor, ...]
    w: tuple[Tensor, ...]


def directions(problem: Problem) -> Directions:
    """Choose directions for a problem."""
    return Directions(like(problem.at, 1), like(problem.at, 2), like(problem.fn(*problem.at), 3))


# each gives a list of tensors for arguments `x`, from a library, the function and directions: derivatives of one member
def _grad(lib: Any, f: Any, d: Directions, x: Any) -> Any:
    return lib.grad(lambda *x: dot(f(*x), d.w), argnums=tuple(range(len(x))))(*x)


def _vjp(lib: Any, f: Any, d: Directions, x: Any) -> Any:
    return lib.vjp(f, *x)[1](d.w)


def _jvp(lib: Any, f: Any, d: Directions, x: Any) -> Any:
    return lib.jvp(f, x, d.v)[1]


def _vjpvjp(lib: Any, f: Any, d: Directions, x: Any) -> Any:
    return lib.vjp(lambda *x: _vjp(lib, f, d, x), *x)[1](d.u)


def _jvpvjp(lib: Any, f: Any, d: Directions, x: Any) -> Any:
    return lib.jvp(lambda *x: _vjp(lib, f, d, x), x, d.v)[1]


def _jvpjvp(lib: Any, f: Any, d: Directions, x: Any) -> Any:
    return lib.jvp(lambda *x: _jvp(lib, f, d, x), x, d.u)[1]


def _vjpjvp(lib: Any, f: Any, d: Directions, x: Any) -> Any:
    return lib.vjp(lambda *x: _jvp(lib, f, d, x), *x)[1](d.w)


DERIVED = {
    "grad": _grad, "vjp": _vjp, "jvp": _jvp, "vjpvjp": _vjpvjp, "jvpvjp": _jvpvjp, "vjpjvp": _vjpjvp, "jvpjvp": _jvpjvp,
}  # fmt: skip
MAPPED = {"vjpvmap": _vjp, "vmapvjp": _vjp, "vmapvjpvjp": _vjpvjp, "vmapjvp": _jvp}
GRAPHS = {"graph of vjp": _vjp, "graph of jvpvjp": _jvpvjp, "graph of vmapvjp": _vjp}
COMPOSITIONS = [*DERIVED, *MAPPED, *GRAPHS]
JIT = "jit of each"  # one program of all the compositions that can be traced


def outcome(problem: Problem, name: str, lib: Any = tp) -> str:
    """Say what comes out for a composition of a library's transforms, ours or torch.func's: one word, and details."""
    run = _derived if name in DERIVED else _mapped if name in MAPPED else _compiled if name == JIT else _traced
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return run(lib, problem, name)
        except Exception as error:  # whatever it is: an error is an answer, a wrong number is not
            return f"refused: {type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _derived(lib: Any, problem: Problem, name: str) -> str:
    f, x, d = problem.fn, problem.at, directions(problem)
    result = DERIVED[name](lib, f, d, x)
    against = {"jvp": d.w, "jvpvjp": d.u, "vjpjvp": d.u, "jvpjvp": d.w}.get(name, d.v)
    ours = dot(result, against)
    second = len(name) > 4
    inner = (lambda *x: dot(_vjp(lib, f, d, x), d.u)) if second else (lambda *x: dot(f(*x), d.w))
    slopes = _slope(inner, x, d.v)
    if close(ours, slopes, 1e-5):
        return "right"
    theirs = _by_autograd(f, d, x, second)
    if close(ours, theirs, 1e-9):
        return "as torch"
    if not slopes.isfinite().all() or slopes.max() - slopes.min() > 1e-2 * (1 + slopes.abs().max()):
        return "kink"
    return f"wrong: {float(ours):.6g}, autograd has {float(theirs):.6g}"


def _slope(inner: Callable[..., Tensor], x: Any, v: Any) -> Tensor:
    """Return the derivative along v by finite differences of fourth order, at two steps: the better one."""

    def at(t: float) -> Tensor:
        return inner(*(a + t * b for a, b in zip(x, v, strict=True)))

    def slope(h: float) -> Tensor:
        return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)

    return torch.stack([slope(1e-3), slope(1e-4), slope(1e-5)])


def _by_autograd(f: Any, d: Directions, x: Any, second: bool) -> Tensor:
    """Return the same number by torch's plain autograd."""
    x = tuple(leaf.clone().requires_grad_() for leaf in x)
    grads = torch.autograd.grad(dot(f(*x), d.w), x, create_graph=second, allow_unused=True, materialize_grads=True)
    if second:
        grads = torch.autograd.grad(dot(grads, d.u), x, allow_unused=True, materialize_grads=True)
    return dot(grads, d.v)


def close(ours: Tensor, theirs: Tensor, slack: float) -> bool:
    """Tell whether a number is one of these, up to rounding; NaN where all are NaN."""
    scale = 1 + torch.as_tensor(theirs).abs().nan_to_num()
    near = (ours - theirs).abs() <= slack * scale
    return bool(near.any() or (ours.isnan() & torch.as_tensor(theirs).isnan()).any() or bool((ours == theirs).any()))


def members(x: Any) -> tuple[Tensor, ...]:
    """Stack a few points near each other: a member may not be told by its number."""
    return tuple(torch.stack([leaf * (1 - 0.01 * i) for i in range(MEMBERS)]) for leaf in x)


def _mapped(lib: Any, problem: Problem, name: str) -> str:
    f, xs, d = problem.fn, members(problem.at), directions(problem)
    # a member of its own memory, or operations on strides would see the others
    one = [MAPPED[name](lib, f, d, tuple(leaf[i].clone() for leaf in xs)) for i in range(MEMBERS)]
    wanted = [torch.stack(column) for column in zip(*one, strict=True)]
    if name == "vjpvmap":
        ours = lib.vjp(lib.vmap(f), *xs)[1](tuple(w.expand(MEMBERS, *w.shape) for w in d.w))
    else:
        ours = lib.vmap(lambda *x: tuple(MAPPED[name](lib, f, d, x)))(*xs)
    return _same(ours, wanted)


def _traced(lib: Any, problem: Problem, name: str) -> str:
    f, x, d = problem.fn, problem.at, directions(problem)

    def run(*x: Tensor) -> Any:
        return tuple(GRAPHS[name](lib, f, d, x))

    run, x = (lib.vmap(run), members(x)) if "vmap" in name else (run, x)
    return _same(tp.make_graph(run)(*x)(*x), run(*x))


def _compiled(lib: Any, problem: Problem, name: str) -> str:
    """Compare one compiled program of all compositions with their uncompiled values."""
    f, d = problem.fn, directions(problem)
    given = {"x": problem.at, "xs": members(problem.at)}

    def one(composition: str, given: Any) -> tuple[Tensor, ...]:
        if composition in DERIVED:
            return tuple(DERIVED[composition](lib, f, d, given["x"]))
        if composition == "vjpvmap":
            cotangents = tuple(w.expand(MEMBERS, *w.shape) for w in d.w)
            return tuple(lib.vjp(lib.vmap(f), *given["xs"])[1](cotangents))
        return tuple(lib.vmap(lambda *x: tuple(MAPPED[composition](lib, f, d, x)))(*given["xs"]))

    kept, why = [], ""
    for composition in (*DERIVED, *MAPPED):
        try:
            lib.make_graph(lambda given, c=composition: one(c, given))(given)
            kept.append(composition)
        except Exception as error:  # it cannot be traced, or there is no such derivative: then nothing is compiled
            why = f"refused: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    if not kept:
        return why
    ours = lib.jit(lambda given: [one(c, given) for c in kept])(given)
    for composition, found in zip(kept, ours, strict=True):
        said = _same(found, one(composition, given))
        if said != "right":
            return f"{said} in {composition}"
    return "right"


def _same(ours: Any, wanted: Any) -> str:
    for one, two in zip(ours, wanted, strict=True):
        if one.shape != two.shape or not torch.allclose(one, two, rtol=1e-8, atol=1e-9, equal_nan=True):
            return f"wrong: {float((one - two).abs().max()):.3g} apart" if one.shape == two.shape else "wrong: shape"
    return "right"


WORDS = ("right", "as torch", "kink", "refused", "wrong")


def word(outcomes: list[str]) -> str:
    """Sum up the outcomes of an operator's samples: the worst one."""
    return max((text.partition(":")[0] for text in outcomes), key=WORDS.index)
