"""Gradients whose squares overflow or underflow give finite parameters, for every optimizer."""

import pytest
import torch
from cases import OPTIMIZERS
from torch.testing import assert_close

from torchpure import optim
from torchpure.testing._case import Problem, advance

START = {"w": torch.arange(12.0).reshape(3, 4).cos(), "b": torch.arange(4.0).sin()}


def problem(size):
    grad = {name: (3 * leaf + 1).sin() * size for name, leaf in START.items()}
    return Problem(lambda params: torch.tensor(size), lambda params: grad, lambda: START)


@pytest.mark.parametrize("size", [1e25, 1e-25])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_stay_finite(name, size):
    optimizer = OPTIMIZERS[name].make()
    params, state = START, optimizer.init(START)
    for _ in range(3):
        params, state = advance(optimizer, problem(size), params, state)
        assert all(leaf.isfinite().all() for leaf in params.values())


SCALE_FREE = {
    "muon": lambda: optim.muon(0.1),
    "muon, rows": lambda: optim.muon(0.1, preconditioning="aol"),
    "galore": lambda: optim.galore(0.1, rank=2, base_optimizer=optim.scale_by_sign()),
    "lbfgs": lambda: optim.lbfgs(0.1, linesearch=optim.identity(), form="scipy"),
}


@pytest.mark.parametrize("name", SCALE_FREE)
def test_the_size_of_the_gradient_does_not_matter(name):
    optimizer, results = SCALE_FREE[name](), []
    for size in (1.0, 2.0**80):
        params, _ = advance(optimizer, problem(size), START, optimizer.init(START))
        results.append(params["w"])
    assert not torch.equal(results[0], START["w"])
    assert_close(*results, rtol=1e-4, atol=1e-5)
