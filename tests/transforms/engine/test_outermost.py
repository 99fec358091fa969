"""The outermost gradient, which runs on plain autograd: captured tensors, modes, hooks, memory that stays alive."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import torchpure as tp
from torchpure.errors import ImpureError, TransformError
from torchpure.testing import assert_trees_close_to_rounding

D = torch.float64
X = torch.tensor([0.3, -1.2], dtype=D)
C = torch.tensor([2.0, 0.5], dtype=D)


def cube(x):
    return (x**3).sum()


def check(actual, expected):
    assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def value_and_slope(c):
    """Σ x² c² and 2 x c², both functions of the captured c; their sum has derivative 2 (x² + 2x) c."""
    value, gradient = tp.value_and_grad(lambda x: (x**2 * c**2).sum())(X)
    return value + gradient.sum()


def by_autograd(fn, c):
    c = c.clone().requires_grad_()
    return torch.autograd.grad(fn(c), c)[0]


def by_dual_level(fn, c):
    def along(direction):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(fn(forward_ad.make_dual(c, direction))).tangent.clone()

    return torch.stack([along(direction) for direction in torch.eye(2, dtype=D)])


OUTSIDE = {
    "autograd": by_autograd,
    "a dual level": by_dual_level,
    "torch.func.grad": lambda fn, c: torch.func.grad(fn)(c),
    "torch.func.jacfwd": lambda fn, c: torch.func.jacfwd(fn)(c),
    "torch.func.vmap": lambda fn, c: torch.func.vmap(torch.func.grad(fn))(c[None])[0],
    "grad": lambda fn, c: tp.grad(fn)(c),
    "jacfwd": lambda fn, c: tp.jacfwd(fn)(c),
    "jacrev": lambda fn, c: tp.jacrev(fn)(c),
    "vjp": lambda fn, c: tp.vjp(fn, c)[1](torch.ones((), dtype=D))[0],
    "vmap of grad": lambda fn, c: tp.vmap(tp.grad(fn))(c[None])[0],
    "grad of vmap": lambda fn, c: tp.grad(lambda c: tp.vmap(fn)(c[None]).sum())(c),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_outer_gradient_reaches_a_captured_tensor(name):
    check(OUTSIDE[name](value_and_slope, C), 2 * (X**2 + 2 * X) * C)


def test_a_gradient_inside_a_checkpoint():
    check(tp.grad(lambda c: checkpoint(value_and_slope, c, use_reentrant=False))(C), 2 * (X**2 + 2 * X) * C)


def module_loss():
    module = nn.Linear(2, 1).double()
    return module.weight, lambda x: (module(x**2).sum(), x)


def parameter_loss():
    weight = nn.Parameter(C.clone())
    return weight, lambda x: ((weight * torch.exp(x)).sum(), {"text": "a", "n": 3, "none": None, "t": weight * x})


def shared_graph():
    """Return in aux a tensor that the backward pass of the value needs too."""
    w = C.clone().requires_grad_()

    def fn(x):
        h = torch.exp(x)
        return h.sum(), (h * w, h)

    return w, fn


def captured_value():
    w = C.sum().detach().requires_grad_()
    return w, lambda x: (w, (x, w, w * 1))


def no_dependence():
    w = C.clone().requires_grad_()
    return w, lambda x: (torch.ones((), dtype=D), {"own": x * 2, "captured": w * 2, "both": w * x, "leaf": w})


SITUATIONS = [module_loss, parameter_loss, shared_graph, captured_value, no_dependence]
INPUTS = {
    "plain": lambda: X.clone(),
    "requires grad": lambda: X.clone().requires_grad_(),
    "not a leaf": lambda: X.clone().requires_grad_() * 1,
    "parameter": lambda: nn.Parameter(X.clone()),
    "frozen parameter": lambda: nn.Parameter(X.clone(), requires_grad=False),
}
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def leaves(*results):
    return [leaf for leaf in tp.tree.leaves(results) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda make: make.__name__)
def test_the_same_as_torch_func(situation, given, mode):
    w, fn = situation()
    x = INPUTS[given]()

    def tensors_only(x):
        value, aux = fn(x)
        return value, leaves(aux)

    with MODES[mode]():
        mine = leaves(tp.value_and_grad(fn, has_aux=True)(x), tp.grad(fn, has_aux=True)(x))
        gradient, (value, aux) = torch.func.grad_and_value(tensors_only, has_aux=True)(x)
    theirs = leaves(((value, aux), gradient), (gradient, aux))
    for actual, expected in zip(mine, theirs, strict=True):
        assert_trees_close_to_rounding(actual, expected)
        assert actual.requires_grad == expected.requires_grad
        if expected.requires_grad:
            check(slope(actual, w), slope(expected, w))


def slope(tensor, w):
    return torch.autograd.grad(tensor.sum(), w, retain_graph=True, allow_unused=True, materialize_grads=True)[0]


def test_aux_can_be_pulled_back_after_the_value_was():
    w, fn = shared_graph()
    (_, aux), _ = tp.value_and_grad(fn, has_aux=True)(X)
    aux[0].sum().backward()
    check(w.grad, torch.exp(X))


@pytest.mark.parametrize(
    "around", [lambda g: g, lambda g: lambda x: tp.vmap(g)(x[None])[0]], ids=["outermost", "inner"]
)
def test_a_tensor_made_in_inference_mode_may_be_used(around):
    with torch.inference_mode():
        features = C.clone()
    calls = [tp.grad(lambda x: (x**2 * features).sum()), lambda x: tp.grad(lambda x, c: (x**2 * c).sum())(x, features)]
    for gradient in calls:
        check(around(gradient)(X), 2 * X * C)


@pytest.fixture
def only_new_objects():
    """Let the collector look at none of the objects that are there: all tests of a run have made millions."""
    gc.collect()
    gc.freeze()


def live():
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


MATRIX = torch.eye(4)
CAST = {
    "grad": lambda: tp.grad(lambda w: (MATRIX @ w).float().sum())(MATRIX),
    "vmap of grad": lambda: tp.vmap(tp.grad(lambda w: (MATRIX @ w).float().sum()))(MATRIX[None]),
    "jacrev": lambda: tp.jacrev(lambda w: (MATRIX @ w).float())(MATRIX),
    "jvp": lambda: tp.jvp(lambda w: (MATRIX @ w).float(), (MATRIX,), (MATRIX,)),
    "vjp": lambda: tp.vjp(lambda w: (MATRIX @ w).float(), MATRIX)[1](MATRIX),
}


@pytest.mark.usefixtures("only_new_objects")
@pytest.mark.parametrize("name", CAST)
def test_autocast_keeps_nothing_alive(name):
    with torch.autocast("cpu", torch.bfloat16):
        CAST[name]()
        before = live()
        for _ in range(20):
            CAST[name]()
        assert live() <= before


NESTINGS = {"outermost": tp.grad, "inner": lambda fn: tp.vmap(tp.grad(fn)), "attached": tp.grad}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_no_tensor_outlives_its_call(nesting):
    seen = []
    w = torch.ones((), dtype=D, requires_grad=nesting == "attached")

    def fn(x):
        y = torch.exp(x * w)
        seen.extend([weakref.ref(x), weakref.ref(y)])
        return y.sum()

    gc.disable()
    try:
        for _ in range(50):
            NESTINGS[nesting](fn)(X)
        assert len(seen) == 100 and not any(ref() is not None for ref in seen)
    finally:
        gc.enable()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_an_exception_restores_the_modes(mode):
    def broken(x):
        with torch.no_grad():
            raise KeyError("broken")

    state = torch.get_rng_state()
    with mode():
        for fn in (broken, tp.grad(broken), tp.vmap(broken), tp.jacfwd(broken)):
            recording = torch.is_grad_enabled()
            with pytest.raises(KeyError, match="broken"):
                tp.grad(fn)(X)
            assert torch.is_grad_enabled() == recording
    assert torch.equal(state, torch.get_rng_state())
    assert forward_ad._current_level == -1
    check(tp.grad(lambda x: checkpoint(cube, x, use_reentrant=False))(X), 3 * X**2)  # the outermost path is open again


def test_temporaries_may_be_mutated_and_the_input_not():
    def fn(x):
        y = x * 2
        y.add_(1)
        y[0] = x[1] ** 2
        return (y * x).sum()

    expected = torch.stack([X[1] ** 2, 2 * X[0] * X[1] + 4 * X[1] + 1])
    for gradient in (tp.grad(fn), lambda x: tp.vmap(tp.grad(fn))(x[None])[0], tp.jacfwd(fn), tp.jacrev(fn)):
        x = X.clone()
        check(gradient(x), expected)
        assert torch.equal(x, X) and x.grad is None and not x.requires_grad
    x = X.clone()
    with pytest.raises(ImpureError, match="grad: `<lambda>` .* changes in place what it was given"):
        tp.grad(lambda x: x.add_(1).sum())(x)
    assert torch.equal(x, X)


def test_hooks_on_saved_tensors_around_the_outermost_gradient():
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        check(tp.grad(cube)(X), 3 * X**2)
    assert packed


@pytest.mark.parametrize("captured", [False, True])
def test_checkpointing_equals_the_plain_function(captured):
    w = C.clone().requires_grad_(captured)
    value, gradient = tp.value_and_grad(lambda x: checkpoint(lambda y: torch.sin(y * w).sum(), x, use_reentrant=False))(
        X
    )
    check(value.detach(), torch.sin(X * C).sum())
    check(gradient.detach(), C * torch.cos(X * C))
    if captured:
        check(torch.autograd.grad(gradient.sum(), w)[0], torch.cos(X * C) - X * C * torch.sin(X * C))


class OldStyle(torch.autograd.Function):
    """A sine whose backward returns ten times the derivative; without `setup_context`, so torch.func refuses it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, cotangent):
        return 10 * cotangent * torch.cos(ctx.saved_tensors[0])


def test_a_function_without_setup_context_works_outermost_only():
    check(tp.grad(lambda x: OldStyle.apply(x).sum())(X), 10 * torch.cos(X))
    with pytest.raises(TransformError, match="uses a torch.autograd.Function that transforms cannot follow: give it"):
        tp.vmap(tp.grad(lambda x: OldStyle.apply(x).sum()))(X[None])


class Recomputed(torch.autograd.Function):
    """Σ x³ whose backward pass is itself a gradient of ours."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return cube(x)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * tp.grad(cube)(ctx.saved_tensors[0])


def test_a_gradient_inside_a_backward_pass():
    check(tp.grad(Recomputed.apply)(X), 3 * X**2)
    x = X.clone().requires_grad_()
    (first,) = torch.autograd.grad(Recomputed.apply(x), x, create_graph=True)
    check(torch.autograd.grad(first.sum(), x)[0], 6 * X)
