"""NumPy arrays, and tensors made under inference mode, where tensors are wanted: one clear error."""

import re

import numpy as np
import pytest
import torch
from cases import OPTIMIZERS
from torch import nn

import torchpure as tp
from torchpure.errors import ParameterError, TransformError

pytestmark = pytest.mark.faults
X, ARRAY = torch.tensor([1.0, 2.0]), np.array([1.0, 2.0], dtype=np.float32)
NET = tp.functional(nn.Linear(2, 1))
ARRAYS = {name: leaf.numpy() for name, leaf in NET.params.items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    optimizer = OPTIMIZERS[name].make()
    state, good, bad = optimizer.init({"w": X}), {"w": X}, {"w": ARRAY}
    extra = {name: X.sum() for name in optimizer.extra}
    calls = [
        lambda: optimizer.init(bad), lambda: optimizer.step(bad, state, good, **extra),
        lambda: optimizer.update(bad, state, good, **extra), lambda: optimizer.update(good, state, bad, **extra),
        lambda: optimizer.step(good, state, bad, **extra),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(TypeError, match="got a NumPy array of float32: convert it with torch.as_tensor"):
            call()


@pytest.mark.parametrize("pair", [(ARRAY, X), (X, ARRAY)])
def test_apply_updates(pair):
    with pytest.raises(TypeError, match="^apply_updates: .* got a NumPy array"):
        tp.optim.apply_updates(*pair)


@pytest.mark.parametrize(
    "call", [lambda: NET(ARRAYS, X), lambda: NET.apply(ARRAYS, {}, X), lambda: NET.to_module(ARRAYS, {})]
)
def test_models(call):
    with pytest.raises(ParameterError, match=re.escape("`weight` wants a tensor of shape (1, 2), got ndarray")):
        call()


LOOPS = {
    "scan": lambda start: tp.scan(lambda carry, x: (carry + x, None), start, X),
    "while_loop": lambda start: tp.while_loop(lambda carry: (carry < 9).all(), lambda carry: carry * 2, start),
    "fori_loop": lambda start: tp.fori_loop(0, 3, lambda i, carry: carry * 2, start),
    "jit": lambda start: tp.jit(lambda x: tp.scan(lambda carry, x: (carry + x, None), start, x))(X),
}


@pytest.mark.parametrize("start", [ARRAY, np.float32(1.0)])
@pytest.mark.parametrize("name", LOOPS)
def test_loops(name, start):
    with pytest.raises(TransformError, match="the carry at `.` must be a tensor or a Python number, got "):
        LOOPS[name](start)


def twice(x):
    with torch.inference_mode():
        return x * 2


@pytest.mark.parametrize("transform", [tp.grad, tp.jacrev, tp.hessian, lambda f: lambda x: tp.vjp(f, x)])
def test_inference_mode(transform):
    with pytest.raises(TransformError, match=r"torch.inference_mode made.* use torch.no_grad instead"):
        transform(lambda x: (twice(x) * x).sum())(X)
    assert tp.jvp(lambda x: (twice(x) * x).sum(), (X,), (X,))[1] == 10.0
