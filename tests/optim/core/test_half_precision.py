"""Running means of half-precision gradients: states are float32, so that they do not stand still."""

import inspect

import pytest
import torch
from cases import OPTIMIZERS
from cases_transforms import COMBINATORS, TRANSFORMS

from torchpure import optim, tree
from torchpure.testing._case import BOWL, advance

CASES = OPTIMIZERS | TRANSFORMS | COMBINATORS
COPIES = ("start", "cache", "grad", "measurement", "measurements")  # exact copies, and functions of one gradient


def _half_params(dtype):
    return tree.map(lambda leaf: leaf.to(dtype), BOWL.start())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_no_accumulator_has_half_precision(name, dtype):
    opt, params = CASES[name].make(), _half_params(dtype)
    state = opt.init(params)
    for found in (state, advance(opt, BOWL, params, state)[1]):
        for path, leaf in zip(tree.paths(found), tree.leaves(found), strict=True):
            is_copy = any(part in COPIES for part in path.split("."))
            assert is_copy or getattr(leaf, "dtype", None) not in (torch.bfloat16, torch.float16), path


ONE = torch.ones(1, dtype=torch.bfloat16)
WHOLE = {  # (transformation, number of updates with a gradient of 1, the update then)
    "ema": (lambda: optim.ema(0.999), 1500, 1.0),
    "trace": (lambda: optim.trace(0.999), 8000, 1000.0),
    "apply_every": (lambda: optim.apply_every(600), 600, 600.0),
    "multi_steps": (lambda: optim.multi_steps(optim.scale(1.0), 600, use_grad_mean=False), 600, 600.0),
    "adam": (lambda: optim.adam(1.0), 1500, -1.0),
    "adam, mu_dtype": (lambda: optim.adam(1.0, mu_dtype=torch.float32), 1500, -1.0),
    "adagrad": (lambda: optim.adagrad(1.0, initial_accumulator_value=0.0), 400, -0.05),
    "schedule_free": (lambda: optim.schedule_free(optim.sgd(1e-4), 1e-4, b1=1e-6), 1, -1e-4),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_running_mean_reaches_its_value(name):
    make, steps, wanted = WHOLE[name]
    opt, params = make(), torch.zeros_like(ONE)
    state, update = opt.init(params), ONE
    for _ in range(steps):
        update, state = opt.update(ONE, state, params)
    assert update.item() == pytest.approx(wanted, rel=1e-2)


AVERAGES = {  # (optimizer, field, value after 100 updates of −0.01 at 100; neighbouring numbers of bfloat16 differ by 0.5)
    "lookahead": (lambda: optim.lookahead(optim.sgd(0.01), sync_period=1), "slow", 99.99),
    "asgd": (lambda: optim.asgd(0.01, lambd=0.0, alpha=0.0, t0=0.0), "average", 99.99),
    "schedule_free": (lambda: optim.schedule_free(optim.sgd(0.01), 0.01), "base", 99.0),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_of_parameters_moves(name):
    make, field, wanted = AVERAGES[name]
    opt, params = make(), 100 * ONE
    state = opt.init(params)
    for _ in range(100):
        _, state = opt.update(ONE, state, params)
    assert getattr(state, field).item() == pytest.approx(wanted, abs=2e-3)


def _takes_dtype(name):
    return "accumulator_dtype" in inspect.signature(CASES[name].factory).parameters


@pytest.mark.parametrize("name", [*filter(_takes_dtype, CASES)])
def test_accumulator_dtype_sets_the_dtype_of_every_accumulator(name):
    half = CASES[name].make(accumulator_dtype=torch.bfloat16).init(_half_params(torch.float32))
    for path, leaf in zip(tree.paths(half), tree.leaves(half), strict=True):
        is_number = leaf.dtype in (torch.float64, torch.int64, torch.bool)  # step counts and other scalars
        is_copy = any(part in COPIES for part in path.split("."))
        assert is_number or is_copy or leaf.dtype == torch.bfloat16, path


def _has_average(name):
    """Return whether a factory of this library keeps accumulators, shaped like the parameters, of its own."""
    state = CASES[name].make().init(BOWL.start())
    return any(getattr(leaf, "ndim", 0) == 2 for leaf in tree.leaves(state))


def test_every_factory_with_accumulators_takes_accumulator_dtype():
    wrappers = {
        *COMBINATORS, "galore", "mechanize", "sam", "schedule_free", "schedule_free_sgd", "schedule_free_adamw", "lbfgs",
        "dog", "dowg", "scale_by_dog", "scale_by_dowg", "scale_by_lbfgs", "scale_by_galore", "snapshot", "monitor",
    }  # fmt: skip
    names = {key.split(",")[0] for key in CASES if _has_average(key)} - {key.split(",")[0] for key in wrappers}
    assert [n for n in names if "accumulator_dtype" not in inspect.signature(getattr(optim, n)).parameters] == []
