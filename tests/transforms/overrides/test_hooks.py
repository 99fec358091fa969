"""Backward hooks inside of transforms: they act, or are refused."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import torchpure as tp
from torchpure.errors import ParameterError, TransformError

X = torch.tensor([0.5, -1.0, 2.0])
W = torch.tensor([1.0, 2.0, 3.0])
WS = torch.stack([W, W * 2])
ONE = torch.tensor(1.0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 1)
        with torch.no_grad():
            for number, leaf in enumerate(self.parameters()):
                leaf.copy_(torch.sin(torch.arange(1.0, leaf.numel() + 1) + number).reshape(leaf.shape))

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


def _scaled(module, *gradients):
    return tuple(None if one is None else one * 10 for one in gradients[0])


HOOKS = {
    "full": lambda layer: layer.register_full_backward_hook(_scaled),
    "pre": lambda layer: layer.register_full_backward_pre_hook(_scaled),
    "old": lambda layer: layer.register_backward_hook(_scaled),
}
CALLS = {
    "grad": lambda f: tp.grad(f)(W),
    "grad(jit)": lambda f: tp.grad(tp.jit(f))(W),
    "scan": lambda f: tp.grad(lambda w: tp.scan(lambda c, _: (c + f(w), None), ONE, length=2)[0] / 2)(W),
    "vjp": lambda f: tp.vjp(f, W)[1](ONE)[0],
    "jacrev": lambda f: tp.jacrev(f)(W),
    "vmap(grad)": lambda f: tp.vmap(tp.grad(f))(W[None])[0],
    "grad(vmap)": lambda f: tp.grad(lambda w: tp.vmap(f)(w[None])[0])(W),
    "jvp": lambda f: tp.jvp(f, (W,), (W,)),
    "jacfwd": lambda f: tp.jacfwd(f)(W),
}
OUTERMOST = {"grad", "grad(jit)", "scan"}
FORWARD = {"grad(vmap)", "jvp", "jacfwd"}


@pytest.mark.filterwarnings("ignore:.*non-full backward hook", "ignore:Full backward hook is firing")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("kind", HOOKS)
def test_a_backward_hook_of_a_module_acts_or_is_refused(kind, captured, call):
    module = Net()
    HOOKS[kind](module.first)
    net = tp.functional(module)
    own = W.clone().requires_grad_()
    module(X * own).sum().backward()

    def f(w):
        return (module(X * w) if captured else net(net.params, X * w)).sum()

    if call in OUTERMOST or (kind == "old" and call not in FORWARD):
        torch.testing.assert_close(CALLS[call](f).detach(), own.grad)
        return
    with pytest.raises(
        TransformError, match=r"line \d+ of test_hooks.py, differentiates a `Linear` with backward hooks"
    ):
        CALLS[call](f)


@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_changes_nothing_where_nothing_is_differentiated(kind):
    module, plain = Net(), tp.functional(Net())
    HOOKS[kind](module.first)
    net = tp.functional(module)
    torch.testing.assert_close(tp.vmap(lambda w: net(net.params, w))(WS), plain(plain.params, WS))
    with torch.no_grad():
        torch.testing.assert_close(tp.vmap(module)(WS), plain(plain.params, WS))


def _hooked(register):
    def f(w):
        y = w * X
        register(y)
        return (y**3).sum()

    return f


@pytest.mark.parametrize("call", CALLS)
def test_a_hook_of_a_tensor_acts_or_is_refused(call):
    f = _hooked(lambda y: y.register_hook(lambda g: g * 10))
    if call not in FORWARD:
        torch.testing.assert_close(CALLS[call](f), 30 * X**3 * W**2)
        return
    with pytest.raises(
        TransformError, match=r"line \d+ of test_hooks.py, registers a hook on a tensor that has no grad"
    ):
        CALLS[call](f)


RERUN = {
    "remat": tp.remat,
    "remat of dots": lambda f: tp.remat(f, "dots"),
    "checkpoint": lambda f: lambda w: checkpoint(f, w, use_reentrant=False),
}


@pytest.mark.parametrize("rerun", RERUN)
def test_a_hook_in_a_function_that_runs_again_acts_once(rerun):
    f = _hooked(lambda y: y.register_hook(lambda g: g * 10))
    torch.testing.assert_close(tp.grad(RERUN[rerun](f))(W), 30 * X**3 * W**2)


SCAN = {"scan": lambda f: lambda w: tp.scan(lambda c, _: (c + f(w), None), w.sum() * 0, length=2, remat=1)[0]}


@pytest.mark.parametrize("rerun", [*RERUN, "scan"])
def test_a_hook_from_a_function_that_runs_again_on_what_it_is_given_is_refused(rerun):
    def f(w):
        w.register_hook(lambda g: g * 10)
        return (w * X).sum()

    with pytest.raises(TransformError, match=r"test_hooks.py, registers a hook on a tensor from outside of a function"):
        tp.grad((RERUN | SCAN)[rerun](f))(W)


@pytest.mark.filterwarnings("ignore:.*non-full backward hook")
def test_a_hook_of_the_older_form_is_refused_under_remat():
    module = Net()
    module.first.register_backward_hook(_scaled)
    net = tp.functional(module)
    with pytest.raises(TransformError, match=r"uses register_backward_hook, which torch does not keep under remat"):
        tp.grad(tp.remat(lambda w: net(net.params, X * w).sum()))(W)


@pytest.mark.parametrize("call", CALLS)
def test_a_hook_after_accumulation_is_refused(call):
    def f(w):
        w.register_post_accumulate_grad_hook(print)
        return (w * X).sum()

    with pytest.raises(TransformError, match=r"registers a hook on the accumulation into .grad"):
        CALLS[call](f)


@pytest.mark.parametrize("call", [call for call in CALLS if call not in OUTERMOST])
def test_retain_grad_is_refused(call):
    with pytest.raises(
        TransformError, match=r"asks for the .grad of an intermediate value: make the value an argument"
    ):
        CALLS[call](_hooked(torch.Tensor.retain_grad))


@pytest.mark.parametrize("register", [torch.Tensor.register_hook, torch.Tensor.register_post_accumulate_grad_hook])
def test_functional_refuses_hooks_of_parameters(register):
    module = Net()
    register(module.first.bias, lambda _: None)
    with pytest.raises(ParameterError, match=r"functional: parameter `first.bias` has a hook on its gradient"):
        tp.functional(module)


def test_a_module_may_be_made_inside_of_a_transform():
    torch.testing.assert_close(
        tp.jvp(lambda w: Net()(w * X).sum(), (W,), (W,))[1], (tp.grad(lambda w: Net()(w * X).sum())(W) * W).sum()
    )
