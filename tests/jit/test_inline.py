"""Cases in which the function itself runs, so that no gradient, mode or subclass is lost."""

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import torchpure as tp

D = torch.float64
X = torch.linspace(-1, 1, 6, dtype=D)
W = torch.linspace(1, 2, 6, dtype=D)


def f(x):
    return torch.sin(x) * 2


compiled = tp.jit(f)


def test_an_input_that_requires_grad_has_its_gradient():
    x = X.clone().requires_grad_()
    for make in (lambda: compiled(x), lambda: tp.jit(f)(x)):
        out = make()
        assert out.requires_grad
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert torch.allclose(grad, 2 * torch.cos(X))
    with torch.no_grad():
        assert torch.allclose(compiled(x), f(X)) and not compiled(x).requires_grad
    assert compiled(x).requires_grad and not compiled(X).requires_grad


def test_parameters_under_no_grad_share_the_program_of_tensors():
    traces = []
    g = tp.jit(lambda x: traces.append(1) or f(x))
    with torch.no_grad():
        g(nn.Parameter(X.clone()))
    g(X)
    with torch.no_grad():
        g(X.clone().requires_grad_())
    assert len(traces) == 1


@pytest.mark.parametrize("how", ["closure", "module", "computed", "returned", "argument"])
def test_a_captured_tensor_that_requires_grad_has_its_gradient(how):
    w = nn.Parameter(W.clone())
    net = nn.Module()
    net.w = w
    g = {
        "closure": lambda x: x * w,
        "module": lambda x: x * net.w,
        "computed": lambda x: x * (w * 2).sin(),
        "returned": lambda x: (x, w)[1],
        "argument": lambda x, net=net: x * net.w,
    }[how]
    jitted = tp.jit(g)
    for _ in range(2):
        with torch.no_grad():
            assert torch.allclose(jitted(X), g(X)) and (how == "returned" or not jitted(X).requires_grad)
        out = jitted(X)
        assert torch.allclose(*(torch.autograd.grad(o.sum(), w)[0] for o in (out, g(X))))
    w.requires_grad_(False)
    assert not jitted(X).requires_grad


def test_transforms_of_torch_see_the_function():
    wanted = 2 * torch.cos(X)
    assert torch.allclose(torch.func.grad(lambda x: compiled(x).sum())(X), wanted)
    assert torch.allclose(torch.func.vmap(torch.func.grad(compiled))(X), wanted)
    assert torch.allclose(torch.func.jvp(compiled, (X,), (torch.ones_like(X),))[1], wanted)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(X, torch.ones_like(X))
        assert torch.allclose(torch.autograd.forward_ad.unpack_dual(compiled(dual)).tangent, wanted)


def test_tracers_see_the_operations():
    compiled(X)
    assert "sin" in str(tp.make_graph(compiled)(X)) and "sin" in make_fx(compiled)(X).code
    assert tp.eval_shape(compiled, tp.ShapeDtype((3,), D)) == tp.ShapeDtype((3,), D)


class _Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class _SeenFunctions(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [_Seen, _SeenFunctions])
def test_modes_see_the_operations(mode):
    compiled(X)
    with mode() as seen:
        compiled(X)
    assert any("sin" in name for name in seen.names)


class _Named(torch.Tensor):
    pass


def test_subclasses_and_lazy_tensors_run_uncompiled():
    named = X.clone().as_subclass(_Named)
    assert type(compiled(named)) is _Named
    lazy = torch.complex(X, W).conj()
    assert torch.equal(tp.jit(lambda z: z * 2)(lazy), lazy * 2)
    assert torch.equal(tp.jit(lambda z: z * 2)(lazy.imag), lazy.imag * 2)
    sparse = X.to_sparse()
    assert torch.equal(tp.jit(lambda z: z * 2)(sparse).to_dense(), X * 2)
    assert compiled(X.to("meta")).is_meta


def test_under_inference_mode_and_back():
    with torch.inference_mode():
        inside = X.clone()
        assert torch.allclose(compiled(X), f(X)) and torch.allclose(compiled(inside), f(X))
        assert tp.jit(f)(inside).is_inference()
        w = W.clone()
        captured = tp.jit(lambda x: x * w)
        assert torch.allclose(captured(X), X * W)
    assert torch.allclose(compiled(inside), f(X)) and torch.allclose(captured(X), X * W)


def test_autocast_is_honoured():
    a = torch.ones(4, 4)
    g = tp.jit(lambda a: a @ a)
    assert g(a).dtype is torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert g(a).dtype is torch.bfloat16
    assert g(a).dtype is torch.float32
    inner = tp.jit(lambda a: _cast(a))
    assert inner(a).dtype is torch.bfloat16


def _cast(a):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return a @ a


@pytest.mark.compile
def test_under_torch_compile_the_function_is_traced():
    assert torch.allclose(torch.compile(compiled, fullgraph=True, backend="aot_eager")(X), f(X))
