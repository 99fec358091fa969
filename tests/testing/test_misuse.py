"""Misuse of the public checks: each error names the check, what came, and the way out."""

import pytest
import torch
from torch import nn

import torchpure as tp

X = torch.ones(2, 3, dtype=torch.float64)


def test_check_model_wants_a_functional_module():
    with pytest.raises(
        TypeError, match=r"check_model: wanted a functional module, got .*: pass tp.functional\(module\)"
    ):
        tp.testing.check_model(nn.Linear(3, 1), (X,))


@pytest.mark.parametrize("wrong", [tp.optim.adam(1e-3), torch.optim.Adam, 3, lambda learning_rate: learning_rate])
def test_check_optimizer_wants_a_factory(wrong):
    with pytest.raises(TypeError, match="check_optimizer: wanted a function from a learning rate to an Optimizer, got"):
        tp.testing.check_optimizer(wrong)


def test_skip_names_laws():
    net = tp.functional(nn.Linear(3, 1).double())
    with pytest.raises(ValueError, match="check_model: skip names no law aply: there are apply_is_pure"):
        tp.testing.check_model(net, (X,), skip=["aply"])
    with pytest.raises(ValueError, match="check_transform: skip names no law nothing: there are"):
        tp.testing.check_transform(tp.grad, torch.sum, (X,), torch.ones_like, skip=["nothing"])
