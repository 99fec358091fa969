"""The result of a gradient does not depend on its engine: plain autograd if outermost, else torch.func."""

import gc
import threading

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import torchpure as tp
from torchpure.errors import ImpureError

X = torch.tensor([0.3, -1.2], dtype=torch.float64)


def attached(*results):
    return [leaf.requires_grad for leaf in tp.tree.leaves(results) if isinstance(leaf, torch.Tensor)]


def ours(fn, x):
    (value, aux), grads = tp.value_and_grad(fn, has_aux=True)(x)
    return value, aux, grads


def theirs(fn, x):
    grads, (value, aux) = torch.func.grad_and_value(fn, has_aux=True)(x)
    return value, aux, grads


def shared(x, w):
    common = (x * 2).sin()
    return common.square().sum(), common.square() * w


def situations():
    w = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    z = w * 2
    module = torch.nn.Linear(2, 1).double()
    constant = torch.tensor(1.5, dtype=torch.float64)
    return {
        "nothing captured": (w, lambda x: ((x**2).sum(), x * 2)),
        "a leaf": (w, lambda x: ((x**2 * w).sum(), (x * 2, w * 1, w, x * w))),
        "not a leaf": (w, lambda x: ((x**2 * z).sum(), z * x)),
        "in aux only": (w, lambda x: ((x**2).sum(), w * x)),
        "in aux, through what the value needs": (w, lambda x: shared(x, w)),
        "a module": (module.weight, lambda x: (module(x**2).sum(), x)),
        "the leaf itself": (w, lambda x: (w.sum(), x)),
        "a constant": (w, lambda x: (constant * 1, x)),
        "linear in x": (w, lambda x: ((x * w).sum(), x.detach())),
    }


@pytest.mark.parametrize("name", situations())
@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("x_requires_grad", [False, True])
def test_same_as_torch_func(name, recording, x_requires_grad):
    w, fn = situations()[name]
    x = X.clone().requires_grad_(x_requires_grad)
    with torch.set_grad_enabled(recording):
        mine, its = ours(fn, x), theirs(fn, x)
    for actual, expected in zip(tp.tree.leaves(mine), tp.tree.leaves(its), strict=True):
        torch.testing.assert_close(actual.detach(), expected.detach(), rtol=1e-14, atol=0)
    assert attached(*mine) == attached(*its)
    for actual, expected in zip(tp.tree.leaves(mine), tp.tree.leaves(its), strict=True):
        if expected.requires_grad:
            (one,) = torch.autograd.grad(actual.sum(), w, retain_graph=True, materialize_grads=True, allow_unused=True)
            (two,) = torch.autograd.grad(
                expected.sum(), w, retain_graph=True, materialize_grads=True, allow_unused=True
            )
            torch.testing.assert_close(one, two, rtol=1e-14, atol=0)


def cube(x):
    return (x**3).sum()


LEVELS = {
    "torch.func.grad": lambda: torch.func.grad(lambda x: tp.grad(cube)(x).sum())(X),
    "torch.func.jacrev": lambda: torch.func.jacrev(tp.grad(cube))(X).diagonal(),
    "torch.func.vmap": lambda: torch.func.vmap(lambda t: tp.grad(tp.grad(cube))(t))(X),
    "torch.func.jvp": lambda: torch.func.jvp(tp.grad(cube), (X,), (torch.ones_like(X),))[1],
    "another gradient": lambda: tp.grad(lambda x: tp.grad(cube)(x).sum())(X),
    "a captured outer variable": lambda: tp.grad(lambda x: tp.grad(lambda y: (y * x**2).sum())(X).sum())(X) * 3,
    "autograd around": lambda: autograd_around(),
    "a dual level": lambda: dual_level(),
}


def autograd_around():
    x = X.clone().requires_grad_()
    return torch.autograd.grad(tp.grad(cube)(x).sum(), x)[0]


def dual_level():
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, torch.ones_like(X))
        return forward_ad.unpack_dual(tp.grad(cube)(dual)).tangent.clone()


@pytest.mark.parametrize("name", LEVELS)
def test_second_derivative_inside(name):
    torch.testing.assert_close(LEVELS[name](), 6 * X, rtol=1e-13, atol=0)


def test_inference_mode_and_inference_tensors():
    with torch.inference_mode():
        torch.testing.assert_close(tp.grad(cube)(X), 3 * X**2)
        inside = X.clone()
    torch.testing.assert_close(tp.grad(cube)(inside), 3 * X**2)


def _steps(x):
    return tp.scan(lambda c, row: (c * torch.sin(row), c), torch.ones((), dtype=x.dtype), x)[0]


UNDER_INFERENCE = {
    "hessian": lambda f: tp.hessian(f)(X),
    "hessian in chunks": lambda f: tp.hessian(f, chunk_size=1)(X),
    "grad grad": lambda f: tp.grad(lambda x: tp.grad(f)(x).sum())(X),
    "jvp jvp": lambda f: tp.jvp(lambda x: tp.jvp(f, (x,), (X,))[1], (X,), (X,)),
    "grad": lambda f: tp.grad(f)(X),
    "jacfwd": lambda f: tp.jacfwd(f)(X),
    "linearize": lambda f: tp.linearize(f, X)[1](X),
    "vmap grad": lambda f: tp.vmap(tp.grad(f))(X.repeat(2, 1)),
    "vmap hessian": lambda f: tp.vmap(tp.hessian(f))(X.repeat(2, 1)),
    "jit grad": lambda f: tp.jit(tp.grad(f))(X),
}
SCALARS = {
    "sum": lambda x: (X * x**3).sum(),
    "scan": _steps,
    "cond": lambda x: tp.cond(x.sum() > 0, torch.sin, torch.cos, x).sum(),
    "map": lambda x: tp.map(torch.sin, x).sum(),
    "remat": tp.remat(lambda x: (x**3).sum()),
}


@pytest.mark.parametrize("fn", SCALARS)
@pytest.mark.parametrize("name", UNDER_INFERENCE)
def test_transforms_in_transforms_under_inference_mode(name, fn, monkeypatch):
    wanted = UNDER_INFERENCE[name](SCALARS[fn])
    with torch.inference_mode():
        outside = UNDER_INFERENCE[name](SCALARS[fn])
        monkeypatch.setitem(globals(), "X", X.clone())
        inside = UNDER_INFERENCE[name](SCALARS[fn])
    for actual in (outside, inside):
        torch.testing.assert_close(actual, wanted, rtol=1e-13, atol=1e-13)


def test_a_mutation_under_inference_mode_is_an_error():
    def fn(x, y):
        y.add_(1)
        return (x * y).sum()

    ones = torch.ones_like(X)
    with torch.inference_mode(), pytest.raises(ImpureError, match="vmap: .* changes argument 1 in place"):
        tp.vmap(lambda x: tp.vmap(fn, (0, None))(x, ones))(X.repeat(2, 1))


def test_checkpointing_in_the_outermost_gradient():
    gradient = tp.grad(lambda x: checkpoint(cube, x, use_reentrant=False))(X)
    torch.testing.assert_close(gradient, 3 * X**2, rtol=1e-14, atol=0)


def test_autograd_inside_the_outermost_gradient():
    def squared_gradient(x):
        (inner,) = torch.autograd.grad(cube(x), x, create_graph=True)
        return (inner**2).sum()

    torch.testing.assert_close(tp.grad(squared_gradient)(X), 36 * X**3, rtol=1e-13, atol=0)


class Doubled(torch.autograd.Function):
    """A square whose backward returns twice the derivative, which shows that it is used."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * 4 * ctx.saved_tensors[0]


def test_a_custom_backward_is_honoured_on_both_paths():
    torch.testing.assert_close(tp.grad(lambda x: Doubled.apply(x).sum())(X), 4 * X)
    torch.testing.assert_close(tp.vmap(tp.grad(Doubled.apply))(X), 4 * X)


def test_an_exception_leaves_the_next_gradient_right():
    def broken(x):
        raise KeyError("broken")

    for _ in range(3):
        with pytest.raises(KeyError, match="broken"):
            tp.grad(broken)(X)
    assert torch.equal(tp.grad(lambda x: checkpoint(cube, x, use_reentrant=False))(X), 3 * X**2)


def test_threads_do_not_see_each_others_levels():
    results = {}

    def work(number):
        x = X * number
        results[number] = [tp.grad(lambda y: tp.grad(cube)(y).sum())(x) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(1, 5):
        for result in results[number]:
            torch.testing.assert_close(result, 6 * X * number, rtol=1e-13, atol=0)


def test_nothing_is_mutated_or_kept_alive():
    x, before = X.clone(), X.clone()
    generator = torch.get_rng_state()

    def live():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    tp.grad(cube)(x)
    start = live()
    for _ in range(30):
        tp.value_and_grad(lambda y: (cube(y), {"y": y}), has_aux=True)(x)
    assert live() <= start
    assert torch.equal(x, before) and not x.requires_grad and x.grad is None
    assert torch.equal(generator, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128])
def test_dtype_and_convention_are_those_of_autograd(dtype):
    x = torch.tensor([0.5, -1.0], dtype=dtype) * (1 + 2j if dtype.is_complex else 1)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((leaf.abs() ** 2).sum(), leaf)
    actual = tp.grad(lambda y: (y.abs() ** 2).sum())(x)
    assert actual.dtype == dtype
    assert torch.equal(actual, expected)


def test_unused_leaves_get_zeros_and_others_none():
    params = {"w": X, "unused": X * 2, "count": torch.tensor(3), "name": "a", "none": None, "flag": True}
    gradient_of = tp.grad(lambda p: cube(p["w"]))
    for gradient in (gradient_of(params), tp.vmap(lambda _: gradient_of(params), out_dims=None)(X)):
        assert torch.equal(gradient["w"], 3 * X**2)
        assert torch.equal(gradient["unused"], torch.zeros_like(X))
        assert [gradient[name] for name in ("count", "name", "none", "flag")] == [None] * 4


def test_aux_that_shares_the_values_graph_can_still_go_backward():
    w = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    _, aux = tp.grad(lambda x: shared(x, w), has_aux=True)(X)
    aux.sum().backward()
    torch.testing.assert_close(w.grad, torch.sin(2 * X).square(), rtol=1e-14, atol=0)
