"""Random programs and random stacks of transforms, and what they must give: loops and plain autograd, and finite differences."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

import torchpure as tp

D = torch.float64
A = torch.tensor([[0.6, -0.3], [0.2, 0.8]], dtype=D)
C = torch.tensor([0.7, -1.3], dtype=D)
V = torch.tensor([1.0, -0.4], dtype=D)
POINTS = torch.tensor([[0.0, 0.0], [0.21, -0.1], [-0.3, 0.17]], dtype=D)
_numbers = itertools.count()
MASK = torch.tensor([True, False])


@tp.custom_jvp
def jvp_sine(t):
    return {"y": torch.sin(t["x"])}


@jvp_sine.defjvp
def _jvp_sine(primals, tangents):
    x, dx = primals[0]["x"], tangents[0]["x"]
    return {"y": torch.sin(x)}, {"y": torch.cos(x) * dx}


@tp.custom_jvp
def handed_on(x):
    """Return x, by a rule that hands on the very tangent that it is given."""
    return x.clone()


handed_on.defjvp(lambda primals, tangents: (primals[0].clone(), tangents[0]))


@tp.custom_vjp
def vjp_product(x, pair):
    return x * pair[0], torch.tanh(pair[1])


def _vjp_product(residuals, cotangent):
    x, a, h = residuals
    return cotangent[0] * a, [cotangent[0] * x, cotangent[1] * (1 - h**2)]


vjp_product.defvjp(
    lambda x, pair: ((x * pair[0], torch.tanh(pair[1])), (x, pair[0], torch.tanh(pair[1]))), _vjp_product
)


@tp.custom_vmap
def vmap_softmax(x):
    return torch.softmax(x, -1)


vmap_softmax.def_vmap(lambda size, batched, x: (torch.softmax(x, -1), True))


def _fori(a: Tensor, b: Tensor) -> Tensor:
    for i in range(3):
        a = torch.tanh(a + b / (i + 1))
    return a


def _while(a: Tensor, b: Tensor) -> Tensor:
    carry, n = {"sum": torch.zeros_like(a), "x": a}, 0
    while n < 2:
        carry, n = {"sum": carry["sum"] + carry["x"] * b, "x": torch.sin(carry["x"])}, n + 1
    return carry["sum"]


def _fori_loop(a: Tensor, b: Tensor) -> Tensor:
    return tp.fori_loop(0, 3, lambda i, c: torch.tanh(c + b / (i + 1)), a)


def _while_loop(a: Tensor, b: Tensor) -> Tensor:
    def body(carry: Any) -> Any:
        return {"sum": carry["sum"] + carry["x"] * b, "x": torch.sin(carry["x"]), "n": carry["n"] + 1}

    start = {"sum": torch.zeros_like(a), "x": a, "n": torch.tensor(0)}
    return tp.while_loop(lambda carry: carry["n"] < 2, body, start, max_steps=3)["sum"]


def _scan(a: Tensor, b: Tensor) -> Tensor:
    (last, _), ys = tp.scan(
        lambda c, x: ((torch.sin(c[0]) * x + b, c[1] * 2), c[0] * c[1]), (a, b), torch.stack([a, b, C])
    )
    return last + ys.mean(0)


def _unrolled(a: Tensor, b: Tensor) -> Tensor:
    c, d, ys = a, b, []
    for x in (a, b, C):
        ys.append(c * d)
        c, d = torch.sin(c) * x + b, d * 2
    return c + torch.stack(ys).mean(0)


def _backwards(a: Tensor, b: Tensor) -> Tensor:
    return tp.scan(lambda c, x: (c * x + 0.1, c), a, torch.stack([a, b]), reverse=True, remat=2)[0]


def _written(a: Tensor, b: Tensor) -> Tensor:
    out = torch.empty_like(a * b)
    out[0] = a[1] * 2
    out[1:] = b[:1]
    out += a
    return out


def _changed_loop(a: Tensor, b: Tensor) -> Tensor:
    last, rows = tp.scan(lambda c, _: (c, c), a, None, length=2)
    return last.mul_(3) + rows.add_(1)[1] + a


def _twice(rule: Callable[..., Any], natural: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a primitive whose oracle is another function."""
    setattr(rule, "natural", natural)  # noqa: B010 functions have no such attribute for type checkers
    return rule


PRIMITIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (1 + b**2),
    "sin": lambda a, b: torch.sin(a),
    "cos": lambda a, b: torch.cos(a),
    "tanh": lambda a, b: torch.tanh(a),
    "sigmoid": lambda a, b: torch.sigmoid(a + b),
    "gauss": lambda a, b: torch.exp(-(a**2)),
    "softplus": lambda a, b: torch.nn.functional.softplus(a),
    "gelu": lambda a, b: torch.nn.functional.gelu(a),
    "atan2": lambda a, b: torch.atan2(a, 2 + b**2),
    "root": lambda a, b: torch.sqrt(1 + a**2),
    "log": lambda a, b: torch.log1p(a**2),
    "cube": lambda a, b: a**3,
    "power": lambda a, b: (1.5 + torch.tanh(a)) ** b.sigmoid(),
    "matrix": lambda a, b: A @ a,
    "dot": lambda a, b: a * (a @ b),
    "outer": lambda a, b: torch.outer(a, b).sum(0),
    "einsum": lambda a, b: torch.einsum("i,j,ij->j", a, b, A),
    "solve": lambda a, b: torch.linalg.solve(A + torch.outer(torch.tanh(b), torch.tanh(b)), a),
    "cumsum": lambda a, b: torch.cumsum(a, 0),
    "flip": lambda a, b: a.flip(0),
    "roll": lambda a, b: torch.roll(a, 1) + b,
    "softmax": lambda a, b: torch.softmax(a, 0),
    "logsumexp": lambda a, b: torch.logsumexp(torch.stack([a, b]), 0),
    "norm": lambda a, b: a / torch.linalg.vector_norm(torch.cat([a, C])),
    "index": lambda a, b: a[torch.tensor([1, 1])] - b[[0, 1]],
    "gather": lambda a, b: torch.gather(a, 0, torch.tensor([1, 0])) * b,
    "where": lambda a, b: torch.where(MASK, a, b),
    "choose": lambda a, b: tp.where(a > 0.05, torch.log, torch.sin, a),
    "maximum": lambda a, b: torch.maximum(a, b),
    "stack": lambda a, b: torch.stack([a, b]).mean(0),
    "reshape": lambda a, b: torch.cat([a, b]).reshape(2, 2).T.sum(1),
    "scatter": lambda a, b: torch.zeros_like(a).index_add(0, torch.tensor([1, 1]), a * b),
    "for": _fori,
    "while": _while,
    "fori_loop": _twice(_fori_loop, _fori),
    "while_loop": _twice(_while_loop, _while),
    "scan": _twice(_scan, _unrolled),
    "scan, reverse": _twice(_backwards, lambda a, b: (a * b + 0.1) * a + 0.1),
    "cond": _twice(
        lambda a, b: tp.cond(a.sum() > 0.05, lambda a, b: torch.sin(a) * b, lambda a, b: a - torch.cos(b), a, b),
        lambda a, b: torch.where(a.sum() > 0.05, torch.sin(a) * b, a - torch.cos(b)),
    ),
    "associative_scan": _twice(
        lambda a, b: tp.associative_scan(torch.mul, torch.stack([a, b, C])).sum(0), lambda a, b: a + a * b + a * b * C
    ),
    "written": _written,
    "changed, remainder": _twice(lambda a, b: (a % 50.0).mul_(3) + a, lambda a, b: (a % 50.0) * 3 + a),
    "changed, rule": _twice(lambda a, b: handed_on(a).mul_(3) + a, lambda a, b: 4 * a),
    "changed, branch": _twice(
        lambda a, b: tp.cond(a.sum() > 0.05, lambda a: a, lambda a: -a, a).mul_(3) + a,
        lambda a, b: torch.where(a.sum() > 0.05, 4 * a, -2 * a),
    ),
    "changed, loop": _twice(_changed_loop, lambda a, b: 5 * a + 1),
    "remat": _twice(lambda a, b: tp.remat(lambda x: torch.sin(x * b))(a), lambda a, b: torch.sin(a * b)),
    "custom_jvp": _twice(lambda a, b: jvp_sine({"x": a * b})["y"], lambda a, b: torch.sin(a * b)),
    "custom_vjp": _twice(lambda a, b: sum(vjp_product(a, [b, a])), lambda a, b: a * b + torch.tanh(a)),
    "custom_vmap": _twice(lambda a, b: vmap_softmax(a + b), lambda a, b: torch.softmax(a + b, -1)),
    "inner grad": _twice(
        lambda a, b: tp.grad(lambda t: (torch.sin(t) * b).sum())(a), lambda a, b: torch.cos(a) * b
    ),
    "inner vmap": _twice(lambda a, b: tp.vmap(lambda t, u: torch.sin(t * u))(a, b), lambda a, b: torch.sin(a * b)),
    "inner jvp": _twice(lambda a, b: tp.jvp(torch.sin, (a,), (b,))[1], lambda a, b: torch.cos(a) * b),
}  # fmt: skip


class Program(NamedTuple):
    """Instructions over registers of two numbers: (primitive, register, register), counted from the last."""

    code: tuple[tuple[str, int, int], ...]

    def __call__(self, x: Tensor, natural: bool = False) -> Tensor:
        """Run the program; `natural` takes the oracles of primitives."""
        registers = [x, C * x.sum()]
        for name, i, j in self.code:
            primitive = PRIMITIVES[name]
            if natural:
                primitive = getattr(primitive, "natural", primitive)
            registers.append(primitive(registers[-1 - i % len(registers)], registers[-1 - j % len(registers)]))
        return (registers[-1] * V + registers[-2]).sum()


def _grad(f: Any) -> Any:
    """Return the gradient by plain autograd."""

    def gradient(x: Tensor) -> Tensor:
        own = x if x.requires_grad else x.detach().requires_grad_()
        with torch.enable_grad():
            value = f(own)
            if not value.requires_grad:
                return torch.zeros_like(x)
            found = torch.autograd.grad(value, own, create_graph=True, allow_unused=True, materialize_grads=True)
        return found[0]

    return gradient


def _loop(f: Any, x: Tensor) -> Tensor:
    return torch.stack([f(x + point) for point in POINTS])


def _met(f: Any) -> Any:
    axis = f"axis {next(_numbers)}"

    def member(x: Tensor) -> Tensor:
        y = f(x)
        return y * tp.psum(torch.tanh(y), axis)

    return lambda x: tp.vmap(member, axis_name=axis)(x + POINTS).sum()


def _scanned(f: Any) -> Any:
    """Run a function in a loop, on what changes and on what stays."""

    def step(x: Tensor) -> Any:
        return lambda c, p: (torch.tanh(c / 2 + f(x + p)) + f(x), torch.sin(c))

    return lambda x: (lambda last, ys: last + ys.sum())(*tp.scan(step(x), x.sum(), POINTS[1:]))


def _scanned_plainly(f: Any) -> Any:
    def run(x: Tensor) -> Tensor:
        c, ys = x.sum(), []
        for p in POINTS[1:]:
            ys.append(torch.sin(c))
            c = torch.tanh(c / 2 + f(x + p)) + f(x)
        return c + torch.stack(ys).sum()

    return run


def _scanned_again(f: Any) -> Any:
    return lambda x: tp.scan(lambda c, _: (c + torch.tanh(f(c)) * V, None), x, None, length=3, remat=2)[0] @ C


def _again(f: Any) -> Any:
    def run(x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + torch.tanh(f(x)) * V
        return x @ C

    return run


def _while_small(f: Any) -> Any:
    def run(x: Tensor) -> Tensor:
        def body(carry: Any) -> Any:
            n, y = carry
            return n + 1, y + torch.tanh(f(y) + f(x)) * V

        return tp.while_loop(lambda carry: carry[0] < 2, body, (torch.tensor(0), x), max_steps=3)[1] @ C

    return run


def _twice_over(f: Any) -> Any:
    def run(x: Tensor) -> Tensor:
        y = x
        for _ in range(2):
            y = y + torch.tanh(f(y) + f(x)) * V
        return y @ C

    return run


def _branched(f: Any) -> Any:
    return lambda x: tp.cond(x.sum() > 0.05, lambda y: torch.sin(f(y)) + f(x), lambda y: f(y * 0.5), x)


# name -> (ours, oracle, number of derivatives): from a function of two numbers that gives one, to another such
TRANSFORMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], int]] = {
    "grad": (lambda f: lambda x: tp.grad(f)(x) @ C, lambda f: lambda x: _grad(f)(x) @ C, 1),
    "value_and_grad": (
        lambda f: lambda x: (lambda v, g: torch.tanh(v) + g @ C)(*tp.value_and_grad(f)(x)),
        lambda f: lambda x: torch.tanh(f(x)) + _grad(f)(x) @ C,
        1,
    ),
    "jvp": (lambda f: lambda x: tp.jvp(f, (x,), (V,))[1], lambda f: lambda x: _grad(f)(x) @ V, 1),
    "jvp along x": (lambda f: lambda x: tp.jvp(f, (x,), (x,))[1], lambda f: lambda x: _grad(f)(x) @ x, 1),
    "vjp": (lambda f: lambda x: tp.vjp(f, x)[1](x.sum())[0] @ V, lambda f: lambda x: _grad(f)(x) @ V * x.sum(), 1),
    "linearize": (lambda f: lambda x: tp.linearize(f, x)[1](x), lambda f: lambda x: _grad(f)(x) @ x, 1),
    "jacfwd": (lambda f: lambda x: tp.jacfwd(f)(x) @ C, lambda f: lambda x: _grad(f)(x) @ C, 1),
    "jacrev": (lambda f: lambda x: tp.jacrev(f)(x) @ C, lambda f: lambda x: _grad(f)(x) @ C, 1),
    "jacfwd, chunks": (lambda f: lambda x: tp.jacfwd(f, chunk_size=1)(x) @ C, lambda f: lambda x: _grad(f)(x) @ C, 1),
    "hessian": (
        lambda f: lambda x: V @ tp.hessian(f)(x) @ C,
        lambda f: lambda x: _grad(lambda y: _grad(f)(y) @ C)(x) @ V,
        2,
    ),
    "vmap": (lambda f: lambda x: tp.vmap(f)(x + POINTS).sum(), lambda f: lambda x: _loop(f, x).sum(), 0),
    "vmap, last": (
        lambda f: lambda x: (tp.vmap(f, in_dims=1)((x + POINTS).T) ** 2).sum(),
        lambda f: lambda x: (_loop(f, x) ** 2).sum(),
        0,
    ),
    "vmap, chunks": (
        lambda f: lambda x: tp.vmap(f, chunk_size=2)(x + POINTS).sum(),
        lambda f: lambda x: _loop(f, x).sum(),
        0,
    ),
    "vmap, meeting": (
        _met,
        lambda f: lambda x: _loop(f, x).sum() * torch.tanh(_loop(f, x)).sum(),
        0,
    ),
    "vmap, shared": (
        lambda f: lambda x: tp.vmap(lambda p, y: f(y) * p.sum(), in_dims=(0, None))(POINTS + 1, x).sum(),
        lambda f: lambda x: f(x) * (POINTS + 1).sum(),
        0,
    ),
    "remat": (lambda f: tp.remat(f), lambda f: f, 0),
    "jit": (lambda f: tp.jit(f), lambda f: f, 0),
    "in a scan": (_scanned, _scanned_plainly, 0),
    "in a scan, remat": (_scanned_again, _again, 0),
    "in a while loop": (_while_small, _twice_over, 0),
    "in a branch": (
        _branched,
        lambda f: lambda x: torch.where(x.sum() > 0.05, torch.sin(f(x)) + f(x), f(x * 0.5)),
        0,
    ),
}  # fmt: skip
DEEPEST = 4  # derivatives: each costs the oracle a graph of the last one's


class Case(NamedTuple):
    """A program, a stack of transforms (the innermost first), and a point."""

    program: Program
    stack: tuple[str, ...]
    x: tuple[float, float]

    def ours(self) -> Tensor:
        """Return what our transforms give."""
        f: Any = self.program
        for name in self.stack:
            f = TRANSFORMS[name][0](f)
        return f(torch.tensor(self.x, dtype=D))

    def oracle(self, stack: tuple[str, ...] | None = None) -> Callable[[Tensor], Tensor]:
        """Return the function that loops and plain autograd make of a stack."""
        f: Any = lambda x: self.program(x, natural=True)  # noqa: E731
        for name in self.stack if stack is None else stack:
            f = TRANSFORMS[name][1](f)
        return f

    def slope(self) -> Tensor | None:
        """Return the outermost gradient by finite differences of what lies inside, where it is one."""
        if not self.stack or self.stack[-1] not in {"grad", "jacfwd", "jacrev", "jacfwd, chunks"}:
            return None
        inner, x = self.oracle(self.stack[:-1]), torch.tensor(self.x, dtype=D)
        f = lambda t: inner(x + t * C).detach()  # noqa: E731
        one, two = ((8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h) for h in (1e-3, 4e-4))
        return one if (one - two).abs() <= 1e-4 * (1 + one.abs()) else None  # a kink is near


def _deep(stack: tuple[str, ...]) -> bool:
    return sum(TRANSFORMS[name][2] for name in stack) <= DEEPEST


instructions = st.tuples(st.sampled_from(sorted(PRIMITIVES)), st.integers(0, 3), st.integers(0, 3))
cases = st.builds(
    Case,
    st.lists(instructions, min_size=1, max_size=6).map(lambda code: Program(tuple(code))),
    st.lists(st.sampled_from(sorted(TRANSFORMS)), min_size=1, max_size=4).map(tuple).filter(_deep),
    st.tuples(*[st.floats(-1.5, 1.5, allow_subnormal=False).map(lambda t: round(t, 3) + 0.0137)] * 2),
)
