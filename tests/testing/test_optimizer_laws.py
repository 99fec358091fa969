"""The laws of optimizers find what is broken."""

import pytest
import torch

from torchpure import optim, tree
from torchpure.testing import LAWS, Case
from torchpure.transforms import custom_jvp

KEPT = []


@custom_jvp
def _doubled(x):
    return 2 * x


@_doubled.defjvp
def _doubled_jvp(primals, tangents):
    return 2 * primals[0], 3 * tangents[0]


class _OnlyForwardIsWrong(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad

    @staticmethod
    def jvp(ctx, tangent):
        return 3 * tangent


def _descend(change):
    def factory(learning_rate):
        def update(grads, state, params):
            return tree.map(lambda g: change(-learning_rate * g), grads), state

        return optim.Optimizer(lambda params: (), update)

    return Case(factory=factory)


def _keep(u):
    KEPT.append(u.clone())
    return u


def test_plain_descent_is_right():
    LAWS["differentiable_in_everything"](_descend(lambda u: 2 * u))
    LAWS["live_tensors_stay_constant"](_descend(lambda u: 2 * u))


@pytest.mark.parametrize("change", [torch.Tensor.detach, _doubled, _OnlyForwardIsWrong.apply])
def test_a_wrong_derivative_is_found(change):
    with pytest.raises(AssertionError, match="Tensor-likes are not close|Mismatched elements"):
        LAWS["differentiable_in_everything"](_descend(change))


def test_tensors_that_stay_are_found():
    every = iter(range(100_000))
    with pytest.raises(AssertionError, match="more tensors are alive after 120 steps"):
        LAWS["live_tensors_stay_constant"](_descend(lambda u: u if next(every) % 60 else _keep(u)))
    assert KEPT
