"""What would silently become a constant: numbers read from tensors, tensors read as numbers, `torch.no_grad`."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

import torchpure as tp
from torchpure.errors import TransformError
from torchpure.transforms.constants import NUMBERS
from torchpure.transforms.constants._numbers import _FORMULAS

D = torch.float64
STEP = 1e-5
X = torch.tensor([1.5, -2.5, 0.3], dtype=D)
TARGET = torch.tensor([1.0, -1.0, 1.0], dtype=D)
M = torch.arange(9, dtype=D).reshape(3, 3).sin()
CLASSES = torch.tensor([0, 2, 1])


def _forward(f, a):
    return tp.jvp(f, (a,), (torch.ones_like(a),))[1]


MODES = {
    "grad": lambda f, a: tp.grad(f)(a),
    "jvp": _forward,
    "jacrev": lambda f, a: tp.jacrev(f)(a),
    "jacfwd": lambda f, a: tp.jacfwd(f)(a),
    "vmap(grad)": lambda f, a: tp.vmap(tp.grad(f))(a[None])[0],
    "linearize": lambda f, a: tp.linearize(f, a)[1](torch.ones_like(a)),
}

# a function of the number, and the point
WITH_NUMBERS = {
    "clamp": (lambda a: torch.clamp(X * 4, -1.0, a), 0.7),
    "leaky_relu": (lambda a: F.leaky_relu(X, a), 0.3),
    "elu": (lambda a: F.elu(X, a), 0.7),
    "celu": (lambda a: F.celu(X, a), 0.7),
    "hardtanh": (lambda a: F.hardtanh(X, -a, a), 0.7),
    "threshold": (lambda a: F.threshold(X, 1.0, a), 0.7),
    "softshrink": (lambda a: F.softshrink(X, a), 0.2),
    "hardshrink": (lambda a: F.hardshrink(X, a), 0.2),
    "softplus": (lambda a: F.softplus(X, a), 0.7),
    "smooth_l1_loss": (lambda a: F.smooth_l1_loss(X, TARGET, beta=a), 0.9),
    "huber_loss": (lambda a: F.huber_loss(X, TARGET, delta=a), 0.9),
    "hinge_embedding_loss": (lambda a: F.hinge_embedding_loss(X, TARGET, a), 0.4),
    "margin_ranking_loss": (lambda a: F.margin_ranking_loss(X, X.flip(0), TARGET, a), 0.4),
    "triplet_margin_loss": (lambda a: F.triplet_margin_loss(M, M + 1, M - 1, a), 0.4),
    "poisson_nll_loss": (lambda a: F.poisson_nll_loss(X.abs(), X**2, False, eps=a), 0.1),
    "cross_entropy": (lambda a: F.cross_entropy(M, CLASSES, label_smoothing=a), 0.1),
    "multi_margin_loss": (lambda a: F.multi_margin_loss(M, CLASSES, 2, margin=a), 0.7),
    "gaussian_nll_loss": (lambda a: F.gaussian_nll_loss(X, TARGET, X**2, eps=a), 0.7),
    "rms_norm": (lambda a: F.rms_norm(M, (3,), eps=a), 0.1),
    "layer_norm": (lambda a: F.layer_norm(M, (3,), eps=a), 0.1),
    "group_norm": (lambda a: F.group_norm(M[None], 3, eps=a), 0.1),
    "pad": (lambda a: F.pad(X, (1, 1), value=a), 0.1),
    "logit": (lambda a: torch.logit(torch.tensor([0.01, 0.5], dtype=D), a), 0.1),
    "full": (lambda a: torch.full((2,), a, dtype=D) ** 2, 0.7),
    "full_like": (lambda a: torch.full_like(X, a) ** 2, 0.7),
    "new_full": (lambda a: X.new_full((2,), a) ** 2, 0.7),
    "add": (lambda a: torch.add(X, X**2, alpha=a) ** 2, 0.7),
    "sub": (lambda a: X.sub(X**2, alpha=a) ** 2, 0.7),
    "rsub": (lambda a: torch.rsub(X, X**2, alpha=a) ** 2, 0.7),
    "index_add": (lambda a: X.index_add(0, CLASSES, X, alpha=a) ** 2, 0.7),
    "addcmul": (lambda a: torch.addcmul(X, X, X, value=a) ** 2, 0.7),
    "addcdiv": (lambda a: torch.addcdiv(X, X, X**2, value=a) ** 2, 0.7),
    "addmm": (lambda a: torch.addmm(M, M, M, alpha=a, beta=a**2) ** 2, 0.7),
    "addmv": (lambda a: torch.addmv(X, M, X, alpha=a) ** 2, 0.7),
    "addr": (lambda a: torch.addr(M, X, X, alpha=a, beta=a) ** 2, 0.7),
    "addbmm": (lambda a: torch.addbmm(M, M[None], M[None], alpha=a, beta=a) ** 2, 0.7),
    "trapezoid": (lambda a: torch.trapezoid(X, dx=a) ** 2, 0.7),
    "cumulative_trapezoid": (lambda a: torch.cumulative_trapezoid(X, dx=a) ** 2, 0.7),
    "var": (lambda a: torch.var(X, correction=a), 0.7),
    "std": (lambda a: M.std(1, correction=a), 0.7),
    "linspace": (lambda a: torch.linspace(a, 2 * a**2, 4, dtype=D) ** 2, 0.7),
    "logspace": (lambda a: torch.logspace(a, 2 * a**2, 4, dtype=D), 0.7),
}


@pytest.mark.filterwarnings("ignore:Converting a tensor")
@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_a_tensor_in_the_place_of_a_number_is_differentiated(name):
    fn, at = WITH_NUMBERS[name]
    f, a = (lambda a: fn(a).sum()), torch.tensor(at, dtype=D)
    wanted = (f(a + STEP) - f(a - STEP)) / (2 * STEP)
    for mode, run in MODES.items():
        assert_close(run(f, a), wanted, rtol=1e-6, atol=1e-7, msg=lambda m, mode=mode: f"{mode}: {m}")


IGNORED, SLOPES = torch.tensor([0, 2, 1, -1]), torch.linspace(-1.0, 2.0, 12, dtype=D).reshape(4, 3)
SHARES, LABELS = torch.softmax(SLOPES, 1), (SLOPES > 0.3).to(D)
# losses with weights -> how they are called with their weight
WITH_WEIGHTS = {
    "nll_loss": lambda w, **o: F.nll_loss(SLOPES, IGNORED, w, ignore_index=-1, **o),
    "cross_entropy": lambda w, **o: F.cross_entropy(SLOPES, IGNORED, w, ignore_index=-1, **o),
    "cross_entropy, smoothed": lambda w, **o: F.cross_entropy(
        SLOPES, IGNORED, w, ignore_index=-1, label_smoothing=0.2, **o
    ),
    "cross_entropy, shares": lambda w, **o: F.cross_entropy(SLOPES, SHARES, weight=w, label_smoothing=0.2, **o),
    "cross_entropy, pixels": lambda w, **o: F.cross_entropy(SLOPES.expand(2, 4, 3).mT, CLASSES.new_ones(2, 4), w, **o),
    "binary_cross_entropy": lambda w, **o: F.binary_cross_entropy(SHARES, LABELS, w, **o),
    "binary_cross_entropy_with_logits": lambda w, **o: F.binary_cross_entropy_with_logits(
        SLOPES, LABELS, w, pos_weight=w + 1, **o
    ),
    "multilabel_soft_margin_loss": lambda w, **o: F.multilabel_soft_margin_loss(SLOPES, LABELS, w, **o),
    "multi_margin_loss": lambda w, **o: F.multi_margin_loss(SLOPES, IGNORED.clamp(min=0), p=2, weight=w, **o),
    "l1_loss": lambda w, **o: F.l1_loss(SLOPES, LABELS, weight=w.expand(4, 3), **o),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_weight_of_a_loss_is_differentiated(name, reduction):
    factors = torch.tensor([1.0, -0.3, 2.0], dtype=D)  # of the weight
    f = lambda a: (WITH_WEIGHTS[name](factors * a + a**2, reduction=reduction) ** 2).sum()  # noqa: E731
    a = torch.tensor(1.5, dtype=D)
    wanted = (f(a + STEP) - f(a - STEP)) / (2 * STEP)
    for mode, run in MODES.items():
        assert_close(run(f, a), wanted, rtol=1e-6, atol=1e-7, msg=lambda m, mode=mode: f"{mode}: {m}")
    assert_close(tp.value_and_grad(f)(a)[0], f(a))
    assert_close(tp.jvp(f, (a,), (a,))[0], f(a))


def test_every_formula_for_numbers_has_a_case():
    tested = {*WITH_NUMBERS, *WITH_WEIGHTS, "subtract", "baddbmm", "trapz", "clip"}
    names = {getattr(operation, "__name__", "") for operations, _, _ in _FORMULAS for operation in operations}
    assert {name.strip("_").removeprefix("special_") for name in names} <= tested


REFUSED = {
    "arange": lambda a: torch.arange(0.0, 2.0, a).sum(),
    "dist": lambda a: torch.dist(X, TARGET, a),
    "vector_norm": lambda a: torch.linalg.vector_norm(X, a),
    "normalize": lambda a: F.normalize(X, a, 0).sum(),
    "pairwise_distance": lambda a: F.pairwise_distance(X[None], TARGET[None], eps=a).sum(),
    "cosine_embedding_loss": lambda a: F.cosine_embedding_loss(M, M**2, TARGET, margin=a),
    "dropout": lambda a: F.dropout(X, a).sum(),
    "interpolate": lambda a: F.interpolate(M[None], scale_factor=a).sum(),
    "renorm": lambda a: torch.renorm(M, 2, 0, a).sum(),
    "airy_ai": torch.special.airy_ai,
    "add_": lambda a: X.clone().add_(X, alpha=a).sum(),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("mode", ["grad", "jvp"])
def test_a_number_without_a_formula_is_refused(name, mode):
    wanted = (
        rf"{name}, line \d+ of test_constants.py,: `\w+` is a tensor that is differentiated|passes a tensor that is"
    )
    with pytest.raises(TransformError, match=wanted):
        MODES[mode](REFUSED[name], torch.tensor(0.9, dtype=D))


def test_a_number_that_is_meant_to_be_constant_passes():
    a = torch.tensor(0.9, dtype=D)
    for mode in ("grad", "jvp", "jacrev", "linearize"):
        found = MODES[mode](lambda a: a * torch.dist(X, TARGET, float(tp.stop_gradient(a))), a)
        assert_close(found, torch.dist(X, TARGET, 0.9))


def test_the_table_of_numbers_names_arguments_of_torch():
    """`torch.ops` says which arguments of an operation are numbers, and where they stand."""
    kinds = {"number", "float", "Optional[number]", "Optional[float]"}
    for operation, (places, _) in NUMBERS.items():
        packet = getattr(torch.ops.aten, getattr(operation, "__name__", ""), None)
        if packet is None or not hasattr(
            operation, "__objclass__" if operation.__class__.__name__ == "method_descriptor" else "__self__"
        ):
            continue  # a function in Python, or in torch.special
        found = [getattr(packet, overload)._schema.arguments for overload in packet.overloads()]
        for name in places.keys() - {"x", "weight"}:
            types = {str(argument.type) for arguments in found for argument in arguments if argument.name == name}
            assert not types or types & kinds or any("float" in kind or "Scalar" in kind for kind in types), (
                operation,
                name,
            )


CONVERSIONS = {
    r"\.item\(\)": lambda x: x * x.item(),
    r"float\(\)": lambda x: x * float(x),
    "a function of math": lambda x: x * math.sin(x),
    r"int\(\)": lambda x: x * int(x),
    r"complex\(\)": lambda x: x * complex(x).real,
    r"\.tolist\(\)": lambda x: x * x.tolist(),
    r"\.numpy\(\)": lambda x: x * float(x.numpy()),
    "numpy's conversion": lambda x: x * np.sin(x),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shown", CONVERSIONS)
@pytest.mark.parametrize("mode", ["grad", "jvp", "jacrev", "linearize"])
def test_a_number_read_from_a_variable_is_refused(shown, mode):
    with pytest.raises(TransformError, match=rf"{shown}.*, line \d+ of test_constants.py, reads numbers"):
        MODES[mode](CONVERSIONS[shown], torch.tensor(2.0))


def test_a_number_read_from_a_constant_is_allowed():
    x, c = torch.tensor(2.0), torch.tensor(3.0)
    for mode, run in MODES.items():
        if mode != "vmap(grad)":
            assert run(lambda x: x * c.item() + x * float(tp.stop_gradient(x)), x).item() == 5.0


def test_conditions_and_texts_are_allowed():
    def f(x):
        return x**2 if x > 0 and bool(x) and f"{x:.1f}" and str(x) else x

    for mode in ("grad", "jvp", "jacrev", "linearize"):
        assert MODES[mode](f, torch.tensor(2.0)).item() == 4.0


NEW = {
    "tensor": lambda x: torch.tensor([x * x, x, 1.0]).sum(),
    "nested": lambda x: torch.tensor([[x * x], [x]], dtype=D).sum(),
    "as_tensor": lambda x: torch.as_tensor((x * x, x)).sum(),
    "asarray": lambda x: torch.asarray([x * x, x]).sum(),
    "of a tensor": lambda x: torch.tensor(x * x + x),
    "new_tensor": lambda x: x.new_tensor([x * x, x]).sum(),
}


@pytest.mark.parametrize("name", NEW)
def test_a_new_tensor_of_tensors_is_differentiated(name):
    x = torch.tensor(2.0)
    for run in MODES.values():
        assert run(NEW[name], x).item() == 5.0
    assert_close(tp.vmap(NEW[name])(x[None] + 1)[0].double(), torch.tensor(12.0 + (name == "tensor"), dtype=D))


def _cut(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x**2
    return y * x


@torch.no_grad()
def _square(x: Tensor) -> Tensor:
    return x**2


def _derived(x: Tensor) -> Tensor:
    with torch.no_grad():
        slope = tp.grad(_square_with_enable)(x) + tp.jvp(_square_with_enable, (x,), (torch.ones_like(x),))[1]
    return slope * x


def _square_with_enable(x: Tensor) -> Tensor:
    with torch.no_grad(), torch.enable_grad():
        return x**2


NO_GRAD = {  # (function, its first derivative at 2, its second)
    "block": (_cut, 4.0, 0.0),
    "decorator": (lambda x: _square(x) * x, 4.0, 0.0),
    "enable_grad inside": (lambda x: _square_with_enable(x) * x, 12.0, 12.0),
    "a transform inside": (_derived, 8.0, 0.0),
}


@pytest.mark.parametrize("name", NO_GRAD)
@pytest.mark.parametrize("outside", [True, False], ids=["grad mode", "no_grad outside"])
def test_no_grad_cuts_every_derivative(name, outside):
    f, first, second = NO_GRAD[name]
    x = torch.tensor(2.0, dtype=D)
    with torch.set_grad_enabled(outside):
        for mode, run in MODES.items():
            assert run(f, x).item() == first, mode
        twice = [tp.jacrev(tp.jacrev(f)), tp.hessian(f), tp.jacfwd(tp.jacfwd(f)), tp.jacrev(tp.jacfwd(f))]
        assert [run(x).item() for run in twice] == [second] * 4
        assert torch.is_grad_enabled() is outside


MISTAKES = {
    "a method": (lambda x: x.sum("a"), "sum"),
    "a function": (lambda x: torch.sum(x, "a"), "sum"),
    "after a branch": (lambda x: x.view("a").sum() if x.sum() > 0 else x, "view"),
}


@pytest.mark.parametrize("transform", [tp.grad, tp.jacrev, tp.jacfwd])
@pytest.mark.parametrize("name", MISTAKES)
def test_another_mistake_in_arguments_keeps_the_error_of_torch(name, transform):
    wrong, operation = MISTAKES[name]
    with pytest.raises(TypeError, match=rf"^{operation}\(\)"):
        transform(wrong)(torch.ones(3))
