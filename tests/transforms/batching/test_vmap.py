"""vmap: mapped dimensions, sizes, and results that are the same for all members."""

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import TransformError

D = torch.float64
X = torch.tensor([1.0, 2.0, -0.5], dtype=D)
XS = torch.arange(6.0, dtype=D).reshape(2, 3)
XSS = torch.arange(24.0, dtype=D).reshape(2, 3, 4)


class Moments(NamedTuple):
    mean: Any
    other: Any


@tp.tree.register_dataclass
@dataclasses.dataclass
class State:
    w: Any
    n: Any


CASES = {
    "last dimension": (lambda: tp.vmap(torch.sum, in_dims=-1)(XS), lambda: XS.sum(0)),
    "first, counted from the end": (lambda: tp.vmap(torch.sum, in_dims=-2)(XS), lambda: XS.sum(1)),
    "list of dims": (lambda: tp.vmap(torch.mul, in_dims=[0, None])(X, X[0]), lambda: X * X[0]),
    "dims of a list in a tuple": (lambda: tp.vmap(lambda p: p[0] * p[1], in_dims=((0, None),))([X, X]), lambda: torch.outer(X, X)),
    "dict dims": (
        lambda: tp.vmap(lambda p: p["a"] @ p["b"], in_dims=({"b": None, "a": 1},))({"a": XS, "b": X[:2]}),
        lambda: X[:2] @ XS,
    ),
    "prefix dims": (
        lambda: tp.vmap(lambda p, q: p["a"][0] * q, in_dims=({"a": None}, 0))({"a": (X[0], X[1])}, X),
        lambda: X[0] * X,
    ),
    "other leaves": (
        lambda: tp.vmap(lambda p: p["a"] * p["n"], in_dims=({"a": 0, "n": None, "s": None, "none": None},))(
            {"a": X, "n": 3, "s": "text", "none": None}
        ),
        lambda: 3 * X,
    ),
    "out at the end": (lambda: tp.vmap(lambda x: x, out_dims=-1)(XS), lambda: XS.T),
    "out in the middle": (lambda: tp.vmap(lambda x: x, out_dims=1)(XSS), lambda: XSS.transpose(0, 1)),
    "out before the end": (lambda: tp.vmap(lambda x: x, out_dims=-2)(XSS), lambda: XSS.transpose(0, 1)),
    "out in front": (lambda: tp.vmap(lambda x: x, out_dims=-3)(XSS), lambda: XSS),
    "out of a tree": (
        lambda: tp.vmap(lambda x: {"a": x, "b": (x[0], X)}, out_dims={"a": 1, "b": (0, None)})(XS),
        lambda: {"a": XS.T, "b": (XS[:, 0], X)},
    ),
    "one entry for one tensor": (lambda: tp.vmap(lambda x: x, out_dims=(1,))(XS), lambda: XS.T),
    "named tuple": (
        lambda: tp.vmap(lambda x: Moments(x.mean(), [x]), out_dims=Moments(0, 1))(XS),
        lambda: Moments(XS.mean(1), [XS.T]),
    ),
    "dataclass": (
        lambda: tp.vmap(lambda p: State(p.w * 2, p.n), in_dims=(State(0, None),))(State(X, X)),
        lambda: State(2 * X, X.expand(3, 3)),
    ),
    "nothing": (lambda: tp.vmap(lambda x: {"a": None})(X), lambda: {"a": None}),
    "same for all": (lambda: tp.vmap(lambda x: (X, {"a": X[0]}), out_dims=None)(XS), lambda: (X, {"a": X[0]})),
    "same for all, repeated": (lambda: tp.vmap(lambda x: X)(XS), lambda: X.expand(2, 3)),
    "its own argument": (lambda: tp.vmap(lambda x, y: y, in_dims=(0, None))(XS, X), lambda: X.expand(2, 3)),
    "integers": (lambda: tp.vmap(lambda i: i * 2)(torch.arange(3)), lambda: 2 * torch.arange(3)),
    "one member": (lambda: tp.vmap(lambda x: x.sum())(XS[:1]), lambda: XS[:1].sum(1)),
    "no members": (lambda: tp.vmap(lambda x: x.sum())(XS[:0]), lambda: torch.zeros(0, dtype=D)),
    "no members, gradient": (lambda: tp.vmap(tp.grad(lambda x: (x**2).sum()))(XS[:0]), lambda: XS[:0]),
    "no members, Hessian": (lambda: tp.vmap(tp.hessian(lambda x: (x**2).sum()))(XS[:0]), lambda: torch.zeros(0, 3, 3, dtype=D)),
    "empty members": (lambda: tp.vmap(lambda x: x * 2)(torch.zeros(2, 0)), lambda: torch.zeros(2, 0)),
    "three levels": (
        lambda: tp.vmap(tp.vmap(tp.vmap(torch.mul, (0, None)), (0, None)), (0, None))(XSS, X[1]),
        lambda: XSS * X[1],
    ),
    "three levels, crossed": (
        lambda: tp.vmap(tp.vmap(tp.vmap(lambda a, b, c: a + b * c, (None, None, 0)), (None, 0, None)), (0, None, None))(X, X, X),
        lambda: X[:, None, None] + X[:, None] * X,
    ),
    "shared by the inner level": (
        lambda: tp.vmap(lambda a: tp.vmap(lambda b: (a * 2, a * b), out_dims=(None, 0))(X))(X),
        lambda: (X * 2, torch.outer(X, X)),
    ),
    "shared by both levels": (
        lambda: tp.vmap(lambda a: tp.vmap(lambda b: X, out_dims=None)(X), out_dims=None)(X),
        lambda: X,
    ),
    "shared inside a gradient": (
        lambda: tp.vmap(tp.grad(lambda y: tp.vmap(lambda z: y**2, out_dims=None)(X)))(X),
        lambda: 2 * X,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_vmap(name):
    actual, expected = (call() for call in CASES[name])
    tp.tree.check_same(actual, expected)
    assert type(actual) is type(expected)
    for one, two in zip(tp.tree.leaves(actual), tp.tree.leaves(expected), strict=True):
        assert_close(one, two, rtol=1e-15, atol=0)


@tp.custom_vmap
def by_rule(m):
    return m.sum(0)


by_rule.def_vmap(lambda size, batched, m: (m.sum(1), True))
cubed = tp.custom_vjp(lambda m: m**3)
cubed.defvjp(lambda m: (m**3, m), lambda m, c: (3 * m**2 * c,))
cubed_by_jvp = tp.custom_jvp(lambda m: m**3)
cubed_by_jvp.defjvp(lambda m, t: (m[0] ** 3, 3 * m[0] ** 2 * t[0]))

SEVERAL = torch.randn(3, 4, 5, 3, dtype=D, generator=torch.Generator().manual_seed(0))
OPERATIONS = {
    "covariance": torch.cov,
    "sine": torch.sin,
    "clone": torch.clone,
    "outer": lambda m: torch.outer(m[0], m[1]),
    "split": lambda m: m.split(1)[0],
    "sort": lambda m: m.sort(-1).values,
    "sum": lambda m: m.sum(-1),
    "matrix product": lambda m: m @ m.T,
    "softmax": lambda m: torch.softmax(m, -1),
    "gradient": tp.grad(lambda m: (m**3).sum()),
    "forward derivative": lambda m: tp.jvp(torch.sin, (m,), (m,))[1],
    "Jacobian": lambda m: tp.jacrev(lambda m: m.prod(-1))(m),
    "custom_vmap": by_rule,
    "custom_vjp": tp.grad(lambda m: cubed(m).sum()),
    "custom_jvp": lambda m: tp.jvp(cubed_by_jvp, (m,), (m,))[1],
    "scan": lambda m: tp.scan(lambda c, row: (c + row, c), m[0], m)[1],
    "vmap": tp.vmap(torch.sin, in_dims=-1, out_dims=-1),
}
WAYS_TO_MAP = {
    "at once": tp.vmap,
    "tree": lambda f, in_dims: lambda x: tp.vmap(lambda p: f(p["a"]), in_dims=({"a": in_dims, "b": None},))({"a": x, "b": 3}),
    "chunks": lambda f, in_dims: tp.vmap(f, in_dims, chunk_size=2),
    "devices": lambda f, in_dims: tp.vmap(f, in_dims, devices=["cpu", "cpu"]),
    "traced": lambda f, in_dims: lambda x: tp.make_graph(tp.vmap(f, in_dims))(x)(x),
    "inside a vmap": lambda f, in_dims: lambda x: tp.vmap(lambda x, _: tp.vmap(f, in_dims)(x), (None, 0))(x, X)[0],
    "of a vmap": lambda f, in_dims: lambda x: tp.vmap(lambda x: tp.vmap(f, in_dims)(x), -1)(x.unsqueeze(-1))[0],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS_TO_MAP)
@pytest.mark.parametrize("dim", [-1, -2, -3])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_negative_in_dims_count_from_the_end_of_the_whole_tensor(operation, dim, way):
    fn = OPERATIONS[operation]
    x = SEVERAL[0]
    expected = torch.stack([fn(member) for member in x.unbind(dim)])
    assert_close(WAYS_TO_MAP[way](fn, dim)(x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("out_dim", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("in_dim", [-1, -4])
def test_negative_dims_in_compiled_members(in_dim, out_dim):
    rows = SEVERAL.repeat(4, 1, 1, 1) if in_dim == -4 else SEVERAL.repeat(1, 1, 1, 4)
    fn = lambda m: (m * 2).sum(0)  # noqa: E731
    expected = torch.stack([fn(member) for member in rows.unbind(in_dim)], out_dim)
    assert_close(tp.jit(tp.vmap(fn, in_dim, out_dim))(rows), expected, rtol=1e-13, atol=0)
    assert_close(tp.vmap(fn, in_dim, out_dim)(rows), expected, rtol=1e-13, atol=0)


def test_keyword_arguments_are_not_mapped():
    mapped = tp.vmap(lambda x, *, scale, name: x * scale.sum() + len(name))
    assert_close(mapped(X, scale=X, name="ab"), X * X.sum() + 2, rtol=1e-15, atol=0)


WAYS_TO_RUN = {
    "eager": lambda fn, **options: tp.vmap(fn, **options),
    "program": lambda fn, **options: tp.jit(tp.vmap(fn, **options)),
    "chunks": lambda fn, **options: tp.vmap(fn, **options, chunk_size=2),
    "devices": lambda fn, **options: tp.vmap(fn, **options, devices=["cpu", "cpu"]),
    "inside a vmap": lambda fn, **options: lambda x: tp.vmap(lambda _: tp.vmap(fn, **options)(x), out_dims=None)(XS),
}


@pytest.mark.parametrize("way", WAYS_TO_RUN)
def test_a_result_that_is_the_same_for_all_members_can_be_anything(way):
    run = WAYS_TO_RUN[way]
    if way != "inside a vmap":
        stacked, *others = run(lambda x: (2 * x, 3, "text", None, {"rate": 0.5}), out_dims=(0, None, None, 0, None))(X)
        assert torch.equal(stacked, 2 * X) and others == [3, "text", None, {"rate": 0.5}]
    assert run(lambda x: 3, out_dims=None)(X) == 3
    assert run(lambda x: {"n": x.ndim}, out_dims={"n": None})(XS) == {"n": 1}


def test_shared_results_stay_differentiable():
    w = X.clone().requires_grad_()
    mapped, shared = tp.vmap(lambda x: (x * w, w**2), out_dims=(0, None))(XS)
    assert_close(torch.autograd.grad(mapped.sum() + shared.sum(), w)[0], XS.sum(0) + 2 * X, rtol=1e-14, atol=0)


ERRORS = {
    "sizes": (lambda: tp.vmap(torch.add)(X, X[:1]), r"`add`: mapped dimensions differ in size: 3 in argument 0, 1 in argument 1. Pass in_dims=None for what is not mapped$"),
    "sizes in trees": (
        lambda: tp.vmap(lambda p, x: x, in_dims=({"a": 0, "b": 1}, 0))({"a": XS, "b": XS}, X[:2]),
        r"differ in size: 2 in argument 0 at `a`, 3 in argument 0 at `b`. Pass",
    ),
    "no dimension": (lambda: tp.vmap(torch.sin)(X[0]), r"argument 0 cannot be mapped over dimension 0: it is a float64 tensor of shape \(\)"),
    "a dimension below": (lambda: tp.vmap(torch.sin, in_dims=-2)(X), "cannot be mapped over dimension -2"),
    "a number": (lambda: tp.vmap(lambda x, n: x * n)(X, 3), "argument 1 cannot be mapped over dimension 0: it is int 3. Pass in_dims=None"),
    "a dimension below, in chunks": (lambda: tp.vmap(torch.sin, in_dims=-2, chunk_size=2)(X), "cannot be mapped over dimension -2"),
    "a dimension below, in a program": (lambda: tp.jit(tp.vmap(torch.sin, in_dims=-2))(X), "cannot be mapped over dimension -2"),
    "a dimension below, in the inner level": (
        lambda: tp.vmap(tp.vmap(torch.sin, in_dims=-2))(XS),
        r"argument 0 cannot be mapped over dimension -2: it is a float64 tensor of shape \(3,\)",
    ),
    "a flag as a dimension": (lambda: tp.vmap(torch.sin, in_dims=(True,))(X), r"in_dims\[0\] must be an int, None or shaped like .*; got bool True"),
    "a name as dimensions": (lambda: tp.vmap(torch.sin, in_dims="a")(X), "in_dims='a' does not fit the 1 positional"),
    "too deep": (lambda: tp.vmap(torch.sin, in_dims=((0, 0),))(X), r"in_dims\[0\] must be"),
    "too deep in a tree": (lambda: tp.vmap(lambda p: p, in_dims=({"a": (0,)},))({"a": X}), r"in_dims\[0\].a must be"),
    "no arguments": (lambda: tp.vmap(lambda: X)(), "has no mapped argument"),
    "keywords only": (lambda: tp.vmap(torch.sin)(input=X), "has no mapped argument"),
    "text": (lambda: tp.vmap(lambda x: {"a": x, "b": "text"})(X), "must return tensors, got str 'text'"),
    "a number, stacked": (lambda: tp.vmap(lambda x: (x, 3))(X), "must return tensors, got int 3 at `1`: make a tensor of it, or give it None in out_dims"),
    "a number, stacked, in a program": (lambda: tp.jit(tp.vmap(lambda x: (x, 3)))(X), "must return tensors, got int 3 at `1`"),
    "out_dims of another shape": (lambda: tp.vmap(lambda x: {"a": x}, out_dims={"b": 0})(X), "out_dims must be an int, None or shaped like"),
    "out_dims as text": (lambda: tp.vmap(torch.sin, out_dims="a")(X), "out_dims must be an int, None or shaped like .*; got str 'a'"),
    "out_dims too large": (
        lambda: tp.vmap(lambda x: {"y": x}, out_dims=2)(XS),
        r"at `y` has no place for a dimension 2: for one member it is a float64 tensor of shape \(3,\)",
    ),
    "out_dims too small": (lambda: tp.vmap(torch.sin, out_dims=-3)(XS), r"at `\.` has no place for a dimension -3"),
    "differs": (lambda: tp.vmap(lambda x: (X, x), out_dims=None)(X), r"the result of .* at `1` differs between members"),
    "differs in the inner level": (
        lambda: tp.vmap(lambda a: tp.vmap(lambda b: a * b, out_dims=None)(X))(X),
        r"at `\.` differs between members",
    ),
    "differs in the outer level": (
        lambda: tp.vmap(lambda a: tp.vmap(lambda b: a * 2, out_dims=None)(X), out_dims=None)(X),
        r"at `\.` differs between members",
    ),
    "draws": (lambda: tp.vmap(lambda x: x * torch.rand(3, dtype=D))(XS), "vmap: .* draws from the global generator. Give each member a key"),
    "draws in the inner level": (lambda: tp.vmap(tp.vmap(lambda x: x * torch.rand(())))(XS), "draws from the global generator"),
    "draws in a forward Jacobian": (lambda: tp.jacfwd(lambda x: x * torch.rand(3, dtype=D))(X), "jacfwd: .* draws from the global generator"),
    "branches": (lambda: tp.vmap(lambda x: x if x.sum() > 0 else -x)(XS), r"vmap: .* branches on the value of a mapped tensor: choose with torch.where"),
    "makes a number": (lambda: tp.vmap(lambda x: x * x.sum().item())(XS), "makes a number of a mapped tensor: keep it a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, message = ERRORS[name]
    with pytest.raises(TransformError, match=message):
        call()


def test_errors_of_the_function_pass_through_unchanged():
    with pytest.raises(RuntimeError, match="The size of tensor a"):
        tp.vmap(lambda x: x + torch.zeros(2))(XS)


def twice(f):
    """Differentiate a gradient: the vjp of a vjp."""

    def through(x):
        ramp = torch.linspace(-1, 2, x.numel(), dtype=D).reshape(x.shape)
        return tp.vjp(lambda y: tp.vjp(f, y)[1](ramp)[0], x)[1](ramp.flip(0))[0]

    return through


WEIGHT = torch.tensor([0.25, -0.5], dtype=D)
PIXELS = torch.sin(torch.arange(48.0, dtype=D)).reshape(2, 2, 2, 6)
WITH_ZEROS = PIXELS.where(PIXELS.abs() > 0.5, 0.0)  # includes 0, where prelu has a kink
NORMS = {  # torch's own derivatives of these write into shared tensors, or have wrong shapes
    "layer norm": (twice(lambda x: F.layer_norm(x, (6,), torch.arange(6.0, dtype=D))), PIXELS),
    "native layer norm": (twice(lambda x: torch.native_layer_norm(x, (2, 6), None, None, 1e-5)[0]), PIXELS),
    "batch norm": (twice(lambda x: F.batch_norm(x, None, None, WEIGHT, training=True)), PIXELS),
    "instance norm": (twice(F.instance_norm), PIXELS),
    "layer norm, linearized": (lambda x: tp.linearize(lambda y: F.layer_norm(y, (6,)), x)[1](x**2), PIXELS),
    "layer norm, Jacobian of Jacobian": (tp.jacrev(tp.jacrev(lambda x: (F.layer_norm(x, (6,)) ** 3).sum())), PIXELS),
    "prelu": (tp.hessian(lambda x: (F.prelu(x, WEIGHT[:1]) ** 3).sum()), WITH_ZEROS),
    "prelu by channel": (tp.hessian(lambda x: (F.prelu(x, WEIGHT) ** 3).sum()), WITH_ZEROS),
    "prelu of a vector": (tp.hessian(lambda x: (torch.prelu(x, WEIGHT[:1]) ** 3).sum()), WITH_ZEROS[:, 0, 0]),
}


@pytest.mark.parametrize("name", NORMS)
def test_second_derivatives_of_mapped_layers(name):
    fn, xs = NORMS[name]
    assert_close(tp.vmap(fn)(xs), torch.stack([fn(x) for x in xs]), rtol=1e-12, atol=1e-12)


def test_the_hessian_of_prelu_is_that_of_its_formula():
    def formula(x):
        return (torch.where(x > 0, x, x * WEIGHT[:, None]) ** 3).sum()

    x = WITH_ZEROS[0]
    assert_close(tp.hessian(lambda y: (F.prelu(y, WEIGHT) ** 3).sum())(x), tp.hessian(formula)(x))
    with pytest.raises(RuntimeError, match="Found parameter numbers = 3 and channel size = 2"):
        tp.jvp(lambda y: F.prelu(y, torch.ones(3, dtype=D)), (x,), (x,))


def test_a_write_that_fails_for_one_member_keeps_the_error_of_torch():
    with pytest.raises(RuntimeError, match=r"^output with shape \[3\] doesn't match the broadcast shape \[2, 3\]$"):
        tp.vmap(lambda x: torch.zeros(3, dtype=D).add_(torch.ones(2, 3)) + x)(XS)
