"""Arguments of gradients: argnums, leaves of every kind, structures, dtypes, and names of functions in errors."""

import dataclasses
import functools
import inspect
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hvp
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import torchpure as tp
from torchpure.errors import TransformError
from torchpure.transforms import describe_function

D = torch.float64
X = torch.tensor([1.0, 2.0], dtype=D)
Y = torch.tensor([0.5, -1.5], dtype=D)


class Pair(NamedTuple):
    one: Any
    two: Any


@tp.tree.register_dataclass
@dataclasses.dataclass
class Params:
    w: Any
    name: Any


@dataclasses.dataclass
class Unregistered:
    w: Any


def product(a, b, *, scale=1.0):
    """Multiply."""
    return (a * b**2).sum() * scale


ARGNUMS = [
    (0, Y**2),
    (1, 2 * X * Y),
    (-1, 2 * X * Y),
    ((0,), (Y**2,)),
    ((1, 0), (2 * X * Y, Y**2)),
    ([-2, 1], (Y**2, 2 * X * Y)),
]


@pytest.mark.parametrize(("argnums", "expected"), ARGNUMS, ids=lambda value: str(value) if not isinstance(value, torch.Tensor) else "")  # fmt: skip
@pytest.mark.parametrize("around", ["outermost", "inner"])
def test_argnums_and_keywords(argnums, expected, around):
    gradient = tp.grad(product, argnums=argnums)
    if around == "inner":
        outer = tp.vmap(lambda a, b: gradient(a, b, scale=3.0))
        actual = tp.tree.map(lambda leaf: leaf[0], outer(X[None], Y[None]))
    else:
        actual = gradient(X, Y, scale=3.0)
    assert type(actual) is type(expected)
    for one, two in zip(tp.tree.leaves(actual), tp.tree.leaves(expected), strict=True):
        assert_close(one, 3 * two, rtol=1e-15, atol=0)


BAD_ARGNUMS = [2, -3, True, None, 1.5, "a", (0, 2), (0, None), (0, False), (0, (1,))]


@pytest.mark.parametrize("argnums", BAD_ARGNUMS, ids=str)
@pytest.mark.parametrize("transform", [tp.grad, tp.value_and_grad, tp.jacrev, tp.jacfwd, tp.hessian])
def test_bad_argnums(transform, argnums):
    message = (
        rf"{transform.__name__}: argnums=.* does not fit the 2 positional arguments of `product` \(test_arguments.py"
    )
    with pytest.raises(TransformError, match=message):
        transform(product, argnums=argnums)(X, Y)


@pytest.mark.parametrize("argnums", [(), (0, 0), (0, -2)])
def test_argnums_that_repeat_or_are_none(argnums):
    with pytest.raises(TransformError, match="grad: argnums must name each argument once and at least one, got"):
        tp.grad(product, argnums=argnums)(X, Y)


def test_keywords_are_not_differentiated():
    with pytest.raises(TransformError, match="grad: `product` .* got no positional argument to differentiate"):
        tp.grad(product)(a=X, b=Y)


OTHERS = {"int": 3, "bool": True, "str": "text", "none": None, "float": 0.5, "index": torch.arange(2), "mask": X > 1}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("around", [lambda g: g, tp.value_and_grad], ids=["outermost", "inner"])
def test_other_leaves_pass_through_and_have_no_gradient(name, around):
    def loss(p):
        kept = p["leaf"]
        assert kept is OTHERS[name] or torch.equal(kept, OTHERS[name])
        return (p["w"] ** 2).sum()

    gradient = tp.grad(loss)({"leaf": OTHERS[name], "w": X})
    assert list(gradient) == ["leaf", "w"] and gradient["leaf"] is None
    assert torch.equal(gradient["w"], 2 * X)


FORMS = {
    "tensor": X,
    "tuple": (X, Y),
    "list": [X, Y],
    "dict": {"b": X, "a": Y},
    "named tuple": Pair(X, Y),
    "dataclass": Params(X, "text"),
    "nested": {"n": {"m": (X, None)}, "o": [Pair(Y, Params(X, 3))]},
    "shape ()": {"s": X[0]},
    "empty": {"e": X[:0], "w": X},
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("around", ["outermost", "inner"])
def test_a_gradient_has_the_structure_of_its_argument(name, around):
    params = FORMS[name]

    def loss(p):
        return sum((leaf**3).sum() for leaf in tp.tree.leaves(p) if isinstance(leaf, torch.Tensor))

    gradient = tp.grad(loss)
    actual = gradient(params) if around == "outermost" else tp.vmap(lambda _: gradient(params), out_dims=None)(X)
    wanted = tp.tree.map(lambda leaf: 3 * leaf**2 if isinstance(leaf, torch.Tensor) else None, params)
    tp.tree.check_same(actual, wanted)
    assert type(actual) is type(params)
    for one, two in zip(tp.tree.leaves(actual), tp.tree.leaves(wanted), strict=True):
        assert_close(one, two, rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("around", ["outermost", "inner"])
def test_the_dtype_is_kept(dtype, around):
    x = X.to(dtype)
    run = tp.value_and_grad(lambda x: (x**2).sum())
    value, gradient = run(x) if around == "outermost" else tp.vmap(run)(x[None])
    assert value.dtype == gradient.dtype == dtype
    assert torch.equal(gradient.reshape(2), 2 * x)


@pytest.mark.parametrize("around", ["outermost", "inner"])
def test_complex_gradients_follow_autograd(around):
    z = torch.complex(X, Y)
    leaf = z.clone().requires_grad_()
    expected = torch.autograd.grad((leaf**3).real.sum() + (leaf.abs() ** 2).sum(), leaf)[0]
    gradient = tp.grad(lambda z: (z**3).real.sum() + (z.abs() ** 2).sum())
    actual = gradient(z) if around == "outermost" else tp.vmap(gradient)(z[None])[0]
    assert_close(actual, expected, rtol=1e-14, atol=0)
    assert_close(actual, 3 * z.conj() ** 2 + 2 * z, rtol=1e-14, atol=0)


def test_a_tensor_that_is_two_leaves_has_two_gradients():
    gradient = tp.grad(lambda p: (p["a"] * p["b"] ** 2).sum())({"a": X, "b": X})
    assert torch.equal(gradient["a"], X**2) and torch.equal(gradient["b"], 2 * X**2)


@pytest.mark.parametrize(
    "transform", [tp.grad, tp.value_and_grad, tp.jacrev, tp.jacfwd, tp.hessian, tp.vmap], ids=lambda t: t.__name__
)
def test_a_transformed_function_keeps_its_name_and_signature(transform):
    made = transform(product)
    assert (made.__name__, made.__doc__) == ("product", "Multiply.")
    assert inspect.signature(made) == inspect.signature(product)


class Net(nn.Module):
    def forward(self, x):
        return (x**2).sum()


def decorated(fn):
    @functools.wraps(fn)
    def inner(*args):
        return fn(*args)

    return inner


CALLABLES = {
    "partial": (functools.partial(product, b=Y), Y**2, r"`product` \(test_arguments.py:\d+\)"),
    "module": (Net(), 2 * X, "`Net`"),
    "method": (Net().forward, 2 * X, r"`Net.forward` \(test_arguments.py:\d+\)"),
    "builtin": (torch.sum, torch.ones_like(X), "`sum`"),
    "decorated": (decorated(lambda x: x.sum()), torch.ones_like(X), r"`<lambda>` \(test_arguments.py:\d+\)"),
    "functional": (functools.partial(tp.functional(Net()), {}), 2 * X, "`Functional`"),
}


@pytest.mark.parametrize("name", CALLABLES)
def test_any_callable(name):
    fn, expected, _ = CALLABLES[name]
    assert_close(tp.grad(fn)(X), expected, rtol=1e-15, atol=0)
    assert_close(tp.vmap(tp.grad(fn))(X[None])[0], expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("name", CALLABLES)
def test_errors_name_the_function_inside(name):
    fn, _, description = CALLABLES[name]
    for outer in (lambda g: g, tp.grad, lambda g: tp.vmap(tp.vmap(tp.grad(g)))):
        with pytest.raises(TransformError, match=f"^hessian: {description} has nothing to differentiate"):
            tp.hessian(outer(fn))(3)
    assert describe_function(functools.partial(functools.partial(product, X), Y)).startswith("`product` (")


def test_an_unregistered_dataclass_is_explained():
    with pytest.raises(
        TransformError, match=r"argument 0 is Unregistered .* or a dataclass .* tree.register_dataclass"
    ):
        tp.grad(lambda p: p.w.sum())(Unregistered(X))


def through_autograd(x):
    (inner,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    return (inner**2).sum()


def through_autograd_of(w, x):
    (inner,) = torch.autograd.grad((x**2 * w).sum(), w, create_graph=True)
    return inner.sum()


def through_autograd_of_fresh(x):
    return through_autograd_of(torch.ones(2, dtype=D, requires_grad=True), x)


CAPTURED = torch.ones(2, dtype=D, requires_grad=True)


def through_backward(x):
    w = torch.ones(2, dtype=D).requires_grad_()
    (x.detach() * w).sum().backward()
    return (w.grad * x).sum()


def without_graph(x):
    return torch.autograd.grad((x**3).sum(), x)[0].sum()


inner_grad = torch.autograd.grad


def by_another_name(x):
    return inner_grad((x**3).sum(), x, retain_graph=False)[0].sum()


def imported_inside(x):
    from torch.autograd import grad as found

    return found((x**3).sum(), x)[0].sum()


def of_a_fresh_one_alone(x):
    w = torch.ones(2, dtype=D, requires_grad=True)
    return (x * torch.autograd.grad((w**2).sum(), w)[0]).sum()


def of_a_constant(x):
    return (x * torch.autograd.functional.jacobian(lambda y: (y**3).sum(), torch.ones(2, dtype=D))).sum()


def with_a_graph(x):
    return torch.autograd.functional.jacobian(lambda y: (y**3).sum(), x, create_graph=True).sum()


def under_no_grad(x):
    y = (x**3).sum()
    with torch.no_grad():
        (constant,) = torch.autograd.grad(y, x)
    return (constant * x).sum()


class Force(torch.nn.Module):
    """The gradient of an energy, as models of forces compute it."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(2, dtype=D))

    def forward(self, x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad((self.scale**2 * x**3).sum(), x)[0]


FORCE = tp.functional(Force())


def backward_through(x):
    (x**3).sum().backward()
    return (x * x.grad).sum()


def backward_by_another_name(x):
    backwards["run"]((x**3).sum())
    return (x * x.grad).sum()


backwards = {"run": Tensor.backward}


def backward_to_a_fresh_one(x):
    w = torch.ones(2, dtype=D, requires_grad=True)
    (x * w).sum().backward(inputs=[w])
    return (x * w.grad).sum()


def checkpointed(x):
    return checkpoint(lambda y: (y**3).sum(), x, use_reentrant=False)


def with_hooks(x):
    with torch.autograd.graph.save_on_cpu():
        return (x**3).sum()


WORKS = {
    "autograd, outermost": (lambda: tp.grad(through_autograd)(X), 36 * X**3),
    "autograd, inner": (lambda: tp.vmap(tp.grad(through_autograd))(X[None])[0], 36 * X**3),
    "autograd, Jacobian": (lambda: tp.jacrev(through_autograd)(X), 36 * X**3),
    "autograd, twice": (lambda: tp.grad(lambda x: tp.grad(through_autograd)(x).sum())(X), 108 * X**2),
    "autograd of a captured tensor": (lambda: tp.grad(lambda x: through_autograd_of(CAPTURED, x))(X).detach(), 2 * X),
    "autograd of a fresh tensor": (lambda: tp.grad(through_autograd_of_fresh)(X).detach(), 2 * X),
    "autograd of a fresh tensor, inner": (lambda: tp.vmap(tp.grad(through_autograd_of_fresh))(X[None])[0], 2 * X),
    "backward": (lambda: tp.grad(through_backward)(X), X),
    "no graph, outermost": (lambda: tp.grad(without_graph)(X), 6 * X),
    "no graph, by another name": (lambda: tp.grad(by_another_name)(X), 6 * X),
    "no graph, imported inside": (lambda: tp.grad(imported_inside)(X), 6 * X),
    "no graph, value_and_grad": (lambda: tp.value_and_grad(lambda x: (x * torch.autograd.grad((x**3).sum(), x)[0]).sum())(X)[1], 9 * X**2),
    "no graph, vjp": (lambda: tp.vjp(lambda x: torch.autograd.grad((x**3).sum(), x)[0], X)[1](X)[0], 6 * X**2),
    "no graph, linearize": (lambda: tp.linearize(lambda x: torch.autograd.grad((x**3).sum(), x)[0], X)[1](X), 6 * X**2),
    "no graph, Jacobian": (lambda: tp.jacrev(without_graph)(X), 6 * X),
    "no graph, Hessian": (lambda: tp.hessian(without_graph)(X), 6 * torch.eye(2, dtype=D)),
    "no graph, inner": (lambda: tp.vmap(tp.grad(without_graph))(X[None])[0], 6 * X),
    "no graph, twice": (lambda: tp.grad(lambda x: (tp.grad(without_graph)(x) ** 2).sum())(X), 72 * X),
    "no graph, program": (lambda: tp.make_graph(tp.grad(without_graph))(X)(X), 6 * X),
    "no graph, jit": (lambda: tp.jit(tp.grad(without_graph))(X), 6 * X),
    "no graph, module": (lambda: tp.grad(lambda p: FORCE(p, X).sum())(FORCE.params)["scale"].detach(), 6 * X**2),
    "no graph, fresh tensor": (lambda: tp.grad(of_a_fresh_one_alone)(X), torch.full_like(X, 2)),
    "no graph, asked for": (lambda: tp.grad(under_no_grad)(X), 3 * X**2),
    "functional, of a constant": (lambda: tp.grad(of_a_constant)(X), torch.full_like(X, 3)),
    "functional, with a graph": (lambda: tp.grad(with_a_graph)(X), 6 * X),
    "checkpoint, outermost": (lambda: tp.grad(checkpointed)(X), 3 * X**2),
    "checkpoint, forward": (lambda: tp.jacfwd(checkpointed)(X), 3 * X**2),
    "checkpoint, inner": (lambda: tp.vmap(tp.grad(checkpointed))(X[None])[0], 3 * X**2),
    "checkpoint, twice": (lambda: tp.grad(lambda x: tp.value_and_grad(checkpointed)(x)[1].sum())(X), 6 * X),
    "checkpoint, vjp": (lambda: tp.vjp(checkpointed, X)[1](torch.ones((), dtype=D))[0], 3 * X**2),
    "checkpoint, Jacobian": (lambda: tp.jacrev(checkpointed)(X), 3 * X**2),
    "checkpoint, Hessian": (lambda: tp.hessian(checkpointed)(X), torch.diag(6 * X)),
    "hooks, outermost": (lambda: tp.grad(with_hooks)(X), 3 * X**2),
    "checkpoint beside an inner gradient": (
        lambda: tp.grad(lambda x: checkpointed(x) + tp.grad(lambda y: (y**3).sum())(x).sum())(X),
        3 * X**2 + 6 * X,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKS)
def test_torch_apis_inside_a_gradient(name):
    call, expected = WORKS[name]
    assert_close(call(), expected, rtol=1e-14, atol=0)


NO_HOOKS = "uses hooks on saved tensors, as save_on_cpu does: only the outermost grad or value_and_grad allows them"
NO_AUTOGRAD = "calls torch.autograd.grad or backward, which do not see through transforms: use tp.grad there"
NO_FUNCTIONAL = "calls torch.autograd.functional, which gives constants: use tp.jacrev, .* or pass create_graph=True"
NO_LINEARIZE = "calls torch.func.linearize, which is wrong there: use tp.linearize"
FAILS = {
    "autograd, forward": (lambda: tp.jacfwd(through_autograd)(X), f"jacfwd: `through_autograd` .* {NO_AUTOGRAD}"),
    "autograd in jvp": (lambda: tp.jvp(through_autograd, (X,), (X,)), f"jvp: .* {NO_AUTOGRAD}"),
    "autograd of a captured tensor": (lambda: tp.vmap(tp.grad(lambda x: through_autograd_of(CAPTURED, x)))(X[None]), f"grad: .* {NO_AUTOGRAD}"),
    "backward": (lambda: tp.grad(backward_through)(X), f"grad: `backward_through` .*, line .* {NO_AUTOGRAD}"),
    "backward, inner": (lambda: tp.vmap(tp.grad(backward_through))(X[None]), f"grad: `backward_through` .* {NO_AUTOGRAD}"),
    "backward, not named": (lambda: tp.grad(backward_by_another_name)(X), f"grad: `backward_by_another_name` .* {NO_AUTOGRAD}"),
    "backward to a fresh tensor": (lambda: tp.grad(backward_to_a_fresh_one)(X), f"grad: `backward_to_a_fresh_one` .* {NO_AUTOGRAD}"),
    "a variable inside": (lambda: tp.vmap(lambda x: x.clone().requires_grad_())(X), "makes a variable for torch's autograd.* use tp.grad"),
    "functional": (lambda: tp.grad(lambda x: torch.autograd.functional.jacobian(torch.sin, x).sum())(X), f"grad: .* {NO_FUNCTIONAL}"),
    "functional, inner": (lambda: tp.vmap(tp.grad(lambda x: torch.autograd.functional.vjp(torch.sin, x, x)[1].sum()))(X[None]), NO_FUNCTIONAL),
    "functional, hvp": (lambda: tp.grad(lambda x: hvp(lambda y: (y**3).sum(), x, X)[1].sum())(X), NO_FUNCTIONAL),
    "functional, captured": (lambda: tp.grad(lambda x: hvp(lambda y: (x * y**3).sum(), Y, Y)[1].sum())(X), NO_FUNCTIONAL),
    "torch.func.linearize": (lambda: tp.grad(lambda x: torch.func.linearize(torch.sin, x)[1](x).sum())(X), f"grad: .* {NO_LINEARIZE}"),
    "torch.func.linearize, jvp": (lambda: tp.jvp(lambda x: torch.func.linearize(torch.sin, x)[1](x), (X,), (X,)), f"jvp: .* {NO_LINEARIZE}"),
    "hooks, inner": (lambda: tp.vmap(tp.grad(with_hooks))(X[None]), f"grad: `with_hooks` .* {NO_HOOKS}"),
    "hooks, twice": (lambda: tp.grad(lambda x: tp.value_and_grad(with_hooks)(x)[1].sum())(X), f"value_and_grad: .* {NO_HOOKS}"),
    "hooks, vjp": (lambda: tp.vjp(with_hooks, X), f"vjp: .* {NO_HOOKS}"),
    "hooks, Jacobian": (lambda: tp.jacrev(with_hooks)(X), f"jacrev: .* {NO_HOOKS}"),
    "hooks, Hessian": (lambda: tp.hessian(with_hooks)(X), f"hessian: .* {NO_HOOKS}"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILS)
def test_torch_apis_that_transforms_cannot_follow(name):
    call, message = FAILS[name]
    with pytest.raises(TransformError, match=message):
        call()
