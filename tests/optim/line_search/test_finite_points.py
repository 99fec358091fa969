"""Line searches and L-BFGS where values or curvatures are denormal, infinite or NaN."""

import pytest
import torch

from torchpure import optim, value_and_grad

SEARCHES = {
    "zoom": optim.scale_by_zoom_linesearch(20),
    "more_thuente": optim.scale_by_more_thuente_linesearch(),
    "strong_wolfe": optim.scale_by_strong_wolfe_linesearch(),
    "backtracking": optim.scale_by_backtracking_linesearch(30),
}
OPTIMIZERS = {name: optim.chain(optim.sgd(20.0), search) for name, search in SEARCHES.items()} | {
    f"lbfgs, {form}": optim.lbfgs(form=form) for form in ("optax", "torch", "scipy")
}


def _run(opt, f, x, steps):
    state = opt.init(x)
    for _ in range(steps):
        value, grad = value_and_grad(f)(x)
        x, state = opt.step(grad, state, x, value=value, grad=grad, value_fn=f)
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["optax", "torch", "scipy"])
def test_lbfgs_stays_at_the_optimum(form, dtype):
    x = _run(optim.lbfgs(form=form), lambda x: x.square().sum(), torch.tensor([1.0, 2.0, 3.0], dtype=dtype), 40)
    torch.testing.assert_close(x, torch.zeros(3, dtype=dtype), rtol=0, atol=1e-25)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_search_takes_no_step_to_a_value_that_is_not_finite(name, bad):
    def f(x):
        return torch.where(x[0] < 0.5, (x - 0.4).square().sum(), torch.full_like(x[0].detach(), bad))

    x = _run(OPTIMIZERS[name], f, torch.tensor([-1.0, 0.0]), 12)
    torch.testing.assert_close(x, torch.tensor([0.4, 0.4]), rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_search_along_a_direction_of_nan_takes_no_step(name):
    def f(x):
        return x.square().sum()

    opt, x = OPTIMIZERS[name], torch.tensor([1.0, 2.0])
    value, nan = f(x), torch.full((2,), float("nan"))
    assert opt.step(nan, opt.init(x), x, value=value, grad=nan, value_fn=f)[0].tolist() == [1.0, 2.0]
