"""higher's inner loops, against steps of torch.optim and gradients by hand."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import torchpure.compat.higher as higher

PAGE = (Path(__file__).parents[3] / "docs" / "from-higher.md").read_text(encoding="utf-8")
X = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(8, 3)
Y = X.prod(1, keepdim=True)
OPTIMIZERS = {
    "SGD": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "maximize": (torch.optim.SGD, {"lr": 0.01, "maximize": True, "weight_decay": 0.1}),
    "Adam": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.01}),
    "AMSGrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "Adadelta": (torch.optim.Adadelta, {}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1}),
    "Adamax": (torch.optim.Adamax, {"lr": 0.01}),
    "ASGD": (torch.optim.ASGD, {"lr": 0.01, "t0": 1e6}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.9, "centered": True}),
    "Rprop": (torch.optim.Rprop, {"lr": 0.01}),
}
ROUNDED = {"ASGD"}  # torch keeps a number of its state in float32


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def _loss(model, **options):
    return (model(X, **options) - Y).square().mean()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_torchs_from_the_state_that_the_optimizer_has(name):
    kind, options = OPTIMIZERS[name]
    model = _model()
    opt = kind(model.parameters(), **options)

    def step():
        opt.zero_grad()
        _loss(model).backward()
        opt.step()

    step()
    with higher.innerloop_ctx(model, opt) as (fmodel, diffopt):
        for _ in range(4):
            diffopt.step(_loss(fmodel))
    for _ in range(4):
        step()
    tolerance = 1e-7 if name in ROUNDED else 1e-12
    for one, other in zip(fmodel.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_an_outer_gradient_is_the_closed_form_of_a_quadratic():
    hessian = torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
    start, rate = (
        torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True),
        torch.tensor(0.1, dtype=torch.float64),
    )
    rate.requires_grad_()
    half = lambda w: w @ hessian @ w / 2  # noqa: E731
    diffopt = higher.create_diff_optim(torch.optim.SGD, {"lr": 0.1}, [start], override={"lr": [rate]})
    params = [start]
    for _ in range(5):
        params = diffopt.step(half(params[0]), params)
    shrunk = torch.matrix_power(torch.eye(3).double() - 0.1 * hessian, 5).diagonal()
    wanted = (shrunk**2 * hessian.diagonal() * start).detach()
    slope = -5 * ((1 - 0.1 * hessian.diagonal()) ** 9 * hessian.diagonal() ** 2 * start.detach() ** 2).sum()
    by_start, by_rate = torch.autograd.grad(half(params[0]), (start, rate))
    torch.testing.assert_close(by_start, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(by_rate, slope, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad])
def test_an_outer_gradient_is_the_slope_of_the_outer_loss(kind):
    model = _model()

    def outer(scale):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            moved[0].weight.mul_(scale)
        opt = kind(moved.parameters(), lr=0.05)
        with higher.innerloop_ctx(moved, opt, copy_initial_weights=False) as (fmodel, diffopt):
            for _ in range(3):
                diffopt.step(_loss(fmodel))
            return _loss(fmodel), moved

    loss, moved = outer(1.0)
    loss.backward()
    slope = (moved[0].weight.grad * model[0].weight).sum()
    numeric = (outer(1 + 1e-5)[0] - outer(1 - 1e-5)[0]) / 2e-5
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-9)


def test_second_order_is_finite_at_a_gradient_of_zero():
    start = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    diffopt = higher.create_diff_optim(torch.optim.Adam, {"lr": 0.1}, [start])
    params = diffopt.step(start.square().sum(), [start])
    assert torch.autograd.grad(params[0].sum(), start)[0].isfinite().all()


def test_steps_without_higher_gradients_keep_no_graph():
    model = _model()
    opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with higher.innerloop_ctx(model, opt, track_higher_grads=False) as (fmodel, diffopt):
        for _ in range(3):
            diffopt.step(_loss(fmodel))
        assert all(leaf.is_leaf and leaf.requires_grad for leaf in fmodel.parameters())
        with pytest.raises(Exception, match="track_higher_grads"):
            _ = fmodel.init_fast_params


def test_initial_weights_are_copied_or_stay_in_the_graph():
    model = _model()
    _loss(higher.monkeypatch(model)).backward()
    assert all(leaf.grad is None for leaf in model.parameters())
    _loss(higher.monkeypatch(model, copy_initial_weights=False)).backward()
    assert all(leaf.grad is not None for leaf in model.parameters())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.layers[1].weight = self.layers[0].weight
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(self.layers[1](torch.tanh(self.layers[0](x))))


def test_submodules_shared_weights_and_buffers():
    model = Tied().double()
    fmodel = higher.monkeypatch(model)
    assert [name for name, _ in fmodel.named_parameters()] == [name for name, _ in model.named_parameters()]
    out = model(X)
    model.norm.reset_running_stats()
    torch.testing.assert_close(fmodel(X), out)
    assert fmodel.norm.running_mean.any() and not model.norm.running_mean.any()
    higher.patch.buffer_sync(model, fmodel)
    assert not fmodel.norm.running_mean.any()
    changed = [leaf + 1 for leaf in fmodel.parameters()]
    fmodel.update_params(changed)
    torch.testing.assert_close(fmodel.layers[1](X), nn.functional.linear(X, changed[0], changed[2]))
    assert len(fmodel.layers) == 2 and [layer(X).shape for layer in fmodel.layers] == [X.shape] * 2
    assert torch.equal(next(fmodel.parameters(time=0)), model.layers[0].weight)
    assert not fmodel.eval().training and not fmodel.norm.training and model.training


def test_groups_callbacks_and_missing_gradients():
    model = _model()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.2}]
    opt = torch.optim.SGD(groups)
    fmodel = higher.monkeypatch(model)
    diffopt = higher.get_diff_optim(opt, model.parameters(), fmodel=fmodel)
    seen = []

    def callback(grads):
        seen.append([grad is None for grad in grads])
        return [grad if grad is None else grad.sign() for grad in grads]

    old = list(fmodel.parameters())
    new = diffopt.step(2 * old[3].sum(), grad_callback=callback)
    assert seen == [[True, True, True, False]] and all(map(torch.equal, old[:3], new[:3]))
    torch.testing.assert_close(new[3], old[3] - 0.2)
    moved = diffopt.step(new[3].sum(), override={"lr": [0.0, 0.5]})
    torch.testing.assert_close(moved[3], new[3] - 0.5)


WRONG = {
    "no parameters": lambda: higher.create_diff_optim(torch.optim.SGD, {"lr": 0.1}),
    "no module": lambda: higher.create_diff_optim(torch.optim.SGD, {"lr": 0.1}, [X.clone()]).step(X.sum()),
    "a class": lambda: higher.create_diff_optim(torch.optim.NAdam, {}, [X.clone()]),
    "an option": lambda: higher.create_diff_optim(torch.optim.SGD, {"lr": 0.1}, [X.clone()], override={"rate": [1]}).step(X.sum(), [X.clone().requires_grad_()]),
    "groups": lambda: higher.create_diff_optim(torch.optim.SGD, {"lr": 0.1}, [X.clone()], override={"lr": [1, 2]}).step(X.clone().requires_grad_().sum(), [X]),
    "another model": lambda: higher.get_diff_optim(torch.optim.SGD(_model().parameters(), 0.1), _model().parameters()),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_misuse_is_a_value_error(name):
    with pytest.raises((ValueError, RuntimeError)):
        WRONG[name]()


def test_trainable_options_come_back_into_the_optimizer():
    model = _model()
    opt = torch.optim.Adam(model.parameters(), 0.1)
    options = higher.optim.get_trainable_opt_params(opt)
    assert options["lr"][0].requires_grad and len(options["betas"][0]) == 2
    with higher.innerloop_ctx(model, opt, override={"lr": options["lr"]}) as (fmodel, diffopt):
        diffopt.step(_loss(fmodel))
        _loss(fmodel).backward()
    assert options["lr"][0].grad < 0
    higher.optim.apply_trainable_opt_params(opt, {"lr": [options["lr"][0] * 2]})
    assert opt.param_groups[0]["lr"] == pytest.approx(0.2)


def test_the_idioms_of_the_page_run_and_agree():
    space = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, space)
    table = PAGE.split("| learn2learn")[0]
    rows = [
        [re.sub(r"^`|`$", "", cell.strip()) for cell in line.strip("|").split(" | ")]
        for line in table.splitlines()
        if line.startswith("|") and "`" in line
    ]
    for _, theirs, ours in rows:
        found = []
        for column in (theirs, ours):
            space.pop("out", None)
            exec(column, space)
            found.append(space.get("out"))
        if found[0] is not None:
            torch.testing.assert_close(*found)
    assert len(rows) == 5
