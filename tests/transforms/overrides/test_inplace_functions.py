"""An autograd.Function that changes its argument in place, under forward derivatives."""

import pytest
import torch

import torchpure as tp
from torchpure.errors import TransformError

ONE = torch.ones(())


class Double(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, y):
        return x.mul_(2), y * 3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_dirty(inputs[0])

    @staticmethod
    def jvp(ctx, x_tangent, y_tangent):
        return x_tangent.mul_(2), y_tangent * 3

    @staticmethod
    def backward(ctx, x_part, y_part):
        return x_part * 2, y_part * 3


def _six_cubes(x):
    twice, thrice = Double.apply(x * x, x)
    return twice * thrice


@pytest.mark.parametrize("x", [1.0, 3.0])
def test_the_rule_changes_the_tangent_in_place(x):
    x = torch.tensor(x)
    assert tp.jvp(_six_cubes, (x,), (ONE,)) == (6 * x**3, 18 * x**2)
    assert tp.jacfwd(_six_cubes)(x) == tp.grad(_six_cubes)(x) == 18 * x**2
    assert tp.hessian(_six_cubes)(x) == 36 * x
    assert tp.jvp(lambda x: tp.jvp(_six_cubes, (x,), (ONE,))[1], (x,), (ONE,))[1] == 36 * x


def test_under_vmap_torch_cannot_run_it():
    with pytest.raises(TransformError, match=r"changes an argument in place in a torch.autograd.Function under vmap"):
        tp.vmap(_six_cubes)(torch.ones(2))
