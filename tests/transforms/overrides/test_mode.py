"""The override mode sees what happens: how a function came by an operation makes no difference."""

import weakref
from collections import deque
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd import grad as grad_imported_before
from torch.overrides import TorchFunctionMode

import torchpure as tp
from torchpure._torch import pop_mode
from torchpure.errors import ImpureError, TransformError
from torchpure.transforms.overrides import only_overrides
from torchpure.transforms.overrides._mode import _MODE, _thread

D = torch.float64
X = torch.tensor([1.0, 2.0], dtype=D)
SINGULAR = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=D)
COFACTORS = torch.tensor([[4.0, -2.0], [-2.0, 1.0]], dtype=D)
THREADS = {"autograd": torch.autograd, "linalg": torch.linalg}


def cube(x):
    return (x**3).sum()


class Slope(nn.Module):
    """A module that differentiates inside its forward."""

    def forward(self, x):
        return torch.autograd.grad(cube(x), x)[0]


class Finds:
    """An object that only a call finds: by its name, behind many records, or through a weak reference."""

    def __init__(self):
        self.records = [{"id": number} for number in range(3000)]
        self.hidden = Slope()

    def __getattr__(self, name):
        if name == "slope":
            return self.hidden
        raise AttributeError(name)


FINDS = Finds()
WEAK = weakref.ref(FINDS)
SLOPES = {
    "by its full name": lambda x: torch.autograd.grad(cube(x), x)[0],
    "imported before": lambda x: grad_imported_before(cube(x), x)[0],
    "out of a dict, by a computed name": lambda x: getattr(THREADS["auto" + "grad"], "gr" + "ad")(cube(x), x)[0],
    "behind 3,000 records": lambda x: FINDS.hidden(x) if FINDS.records else x,
    "by __getattr__": lambda x: FINDS.slope(x),
    "through a weak reference": lambda x: WEAK().hidden(x),
    "in a partial": partial(lambda slope, x: slope(x), Slope()),
    "by a generator": lambda x: next(one(x) for one in iter([Slope()])),
    "in a functional module": lambda x: tp.functional(Slope())({}, x),
}
OUTER = {
    "grad": lambda f: tp.grad(lambda x: f(x).sum())(X),
    "vjp": lambda f: tp.vjp(f, X)[1](torch.ones_like(X))[0],
    "jacrev": lambda f: tp.jacrev(f)(X).sum(0),
    "vmap of grad": lambda f: tp.vmap(tp.grad(lambda x: f(x).sum()))(X[None])[0],
    "grad of grad": lambda f: tp.grad(lambda x: (tp.grad(lambda y: f(y).sum())(x) * x).sum() / 2)(X),
}


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("how", SLOPES)
def test_autograd_inside_is_differentiated_however_it_is_found(how, outer):
    torch.testing.assert_close(OUTER[outer](SLOPES[how]), 6 * X)


DETERMINANTS = {
    "by its full name": torch.det,
    "as a method": lambda x: x.det(),
    "by a computed name": lambda x: getattr(THREADS["linalg"], "d" + "et")(x),
    "by __getattr__": lambda x: type("Finds", (), {"__getattr__": lambda self, name: torch.det})().anything(x),
}


@pytest.mark.parametrize("how", DETERMINANTS)
def test_an_overridden_operation_is_right_however_it_is_found(how):
    f = DETERMINANTS[how]
    gradient = tp.grad(f)
    torch.testing.assert_close(gradient(SINGULAR), COFACTORS)
    torch.testing.assert_close(tp.vmap(gradient)(SINGULAR[None])[0], COFACTORS)
    torch.testing.assert_close(tp.jacfwd(f)(SINGULAR), COFACTORS)


def test_the_mode_is_off_after_a_call_and_after_an_error():
    def fails(x):
        assert _thread.active
        raise ValueError("mine")

    for transform in (tp.grad, tp.vmap, tp.jacfwd, tp.jacrev, tp.hessian):
        with pytest.raises(ValueError, match="mine"):
            transform(fails)(X)
        assert not _thread.active and only_overrides()
    with pytest.raises(ValueError, match="mine"):
        tp.grad(lambda x: tp.vmap(tp.grad(fails))(x).sum())(X)
    assert not _thread.active and only_overrides()


class _Doubles(TorchFunctionMode):
    """A mode of the user: sine is twice itself."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return out * 2 if func is torch.sin else out


def test_modes_of_the_user_stay_on_around_and_inside():
    inside = tp.grad(lambda x: _under(_Doubles(), lambda: tp.vmap(torch.sin)(x)).sum())
    torch.testing.assert_close(inside(X), 2 * X.cos())
    with _Doubles():
        torch.testing.assert_close(tp.grad(lambda x: tp.vmap(torch.sin)(x).sum())(X), 2 * X.cos())
        assert not only_overrides()


def _under(mode, run):
    with mode:
        return run()


def test_a_transform_pauses_the_mode_around_its_own_code():
    """Without it, each read of a shape in a nested transform costs a microsecond more."""
    seen = []

    class Counts(type(_MODE)):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs)

    import torchpure.transforms.overrides._mode as module

    counting, before = Counts(), module._MODE
    module._MODE = counting
    try:
        tp.vmap(tp.grad(lambda x: x.sin().sum()))(X[:, None])
    finally:
        module._MODE = before
    assert len(seen) == 2, seen  # the sine and the sum


@pytest.mark.compile
def test_a_compiled_function_runs_compiled_on_constants_inside_a_gradient():
    runs = []

    def scaled(c):
        runs.append(1)
        return c * 2

    compiled = tp.jit(scaled)
    for _ in range(3):
        torch.testing.assert_close(tp.grad(lambda x: (x * compiled(X)).sum())(X), 2 * X)
    assert len(runs) == 1
    torch.testing.assert_close(tp.grad(lambda x: (compiled(x) * x).sum())(X), 4 * X)


HOOKED = {
    "functional": lambda module: partial(tp.functional(module), tp.functional(module).params),
    "captured": lambda module: module.requires_grad_(False),
}


@pytest.mark.parametrize("transform", [tp.grad, tp.vmap, tp.jacrev])
@pytest.mark.parametrize("held", HOOKED)
def test_a_forward_hook_that_stores_activations_is_reported(held, transform):
    module, kept = nn.Sequential(nn.Linear(2, 2, dtype=D), nn.Tanh()), []
    module[1].register_forward_hook(lambda _, given, out: kept.append(out))
    call = HOOKED[held](module)
    with pytest.raises(ImpureError, match="lets a traced tensor out"):
        transform(lambda x: call(x).sum())(X[None].expand(2, 2) if transform is tp.vmap else X)


def test_a_call_does_not_look_at_what_it_can_reach_again():
    """Only the first call of a function searches far; no result depends on the search."""

    class Looked(dict):
        looked = 0

        def items(self):
            Looked.looked += 1
            return super().items()

    class Trainer:
        def __init__(self):
            self.records = [Looked(number=number) for number in range(1000)]

        def loss(self, w):
            return (w * w).sum()

    gradient = tp.grad(Trainer().loss)
    gradient(X)
    assert Looked.looked >= 1000
    Looked.looked = 0
    for _ in range(10):
        torch.testing.assert_close(gradient(X), 2 * X)
    assert Looked.looked <= 100


SLOPE_OF_J0 = -float(torch.special.bessel_j1(X[0]))


def _leaves_a_mode_on(x):
    mode = torch.device("cpu")
    mode.__enter__()
    KEPT.append(mode)
    return x**2


def _ends_all_modes(x):
    while not only_overrides() or _thread.active:
        pop_mode()
        _thread.active = False
    return x**2


KEPT = []


@pytest.mark.parametrize("unbalanced", [_leaves_a_mode_on, _ends_all_modes])
def test_modes_that_a_function_leaves_unbalanced_do_not_end_the_overrides(unbalanced):
    tp.grad(unbalanced)(X[0])
    while KEPT:
        KEPT.pop().__exit__(None, None, None)
    assert only_overrides() and not _thread.active
    assert float(tp.grad(torch.special.bessel_j0)(X[0])) == pytest.approx(SLOPE_OF_J0)


class Determinant(nn.Module):
    def forward(self, a):
        return torch.linalg.det(torch.diag(torch.stack([a, a])))


def test_operations_of_a_traced_program_are_replaced():
    program = tp.make_graph(torch.special.bessel_j0)(X[0])
    assert float(tp.grad(lambda x: program(x))(X[0])) == pytest.approx(SLOPE_OF_J0)
    assert float(tp.jvp(lambda x: program(x), (X[0],), (torch.ones_like(X[0]),))[1]) == pytest.approx(SLOPE_OF_J0)
    exported = torch.export.export(Determinant(), (X[0],)).module()
    assert float(tp.hessian(lambda x: exported(x))(torch.zeros((), dtype=D))) == 2
    with pytest.raises(TransformError, match="reads numbers"):
        tp.grad(lambda x: x * torch.ops.aten.item(x))(X[0])


def test_seeds_of_a_nested_gradient_are_differentiated():
    def f(p):
        w = torch.tensor(2.0, dtype=D, requires_grad=True)
        return torch.autograd.grad(w**2, w, grad_outputs=p**2)[0]

    assert float(tp.grad(f)(torch.tensor(1.5, dtype=D)).detach()) == 12
    assert float(tp.grad(lambda p: tp.vmap(f)(p[None]).sum())(torch.tensor(1.5, dtype=D)).detach()) == 12


def test_a_function_that_torch_calls_back_is_seen():
    def loss(p):
        one = torch.ones(1, 1, dtype=D)
        distance = lambda a, b: torch.special.bessel_j0(a - b).sum(-1)  # noqa: E731
        return nn.functional.triplet_margin_with_distance_loss(
            p * one, 0 * one, one, distance_function=distance, margin=5.0
        )

    p, step = torch.tensor(1.5, dtype=D), 1e-6
    wanted = float(loss(p + step) - loss(p - step)) / (2 * step)
    for slope in (tp.grad(loss)(p), tp.jvp(loss, (p,), (torch.ones_like(p),))[1], tp.jacrev(loss)(p)):
        assert float(slope) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.compile
def test_a_function_of_torch_compile_may_be_called_inside():
    compiled = torch.compile(lambda a: torch.sin(a) * a, backend="eager")
    wanted = X[0].sin() + X[0] * X[0].cos()
    torch.testing.assert_close(tp.grad(lambda x: compiled(x))(X[0]), wanted)


BOUNDED = {
    "clamp": lambda o, p: o.clamp(0, p),
    "clip": lambda o, p: torch.clip(o, p - 1, 20.0),
    "by name": lambda o, p: torch.clamp(o, max=p, min=0),
    "a deque": lambda o, p: o * torch.tensor(deque([p, p * p])),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_that_is_differentiated_beside_a_number(name):
    o, p = torch.tensor([9.0, 0.2], dtype=D), torch.tensor(1.5, dtype=D)

    def f(p):
        return BOUNDED[name](o, p).sum()

    wanted = {"clamp": 1.0, "clip": 1.0, "by name": 1.0, "a deque": 9.0 + 0.2 * 3.0}[name]
    for slope in (tp.grad(f)(p), tp.jvp(f, (p,), (torch.ones_like(p),))[1], tp.jacfwd(f)(p)):
        assert float(slope) == pytest.approx(wanted)


@pytest.mark.parametrize("transform", [tp.grad, tp.jacfwd])
def test_a_place_of_a_quantile_that_is_differentiated_is_refused(transform):
    with pytest.raises(TransformError, match=r"quantile, line \d+ of test_mode.py.*`q` is a tensor"):
        transform(lambda p: torch.quantile(torch.tensor([1.0, 3.0, 8.0], dtype=D), p))(torch.tensor(0.5, dtype=D))
