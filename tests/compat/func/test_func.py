"""torch.func's names, signatures, results and kinds of errors."""

import inspect
import re
import warnings
from pathlib import Path

import functorch
import pytest
import torch
from torch import nn

import torchpure as tp
import torchpure.compat.func as ours

X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
W = torch.arange(6.0, dtype=torch.float64).reshape(2, 3) / 5
PAGE = (Path(__file__).parents[3] / "docs" / "from-torch-func.md").read_text(encoding="utf-8")
CALLABLES = {name for space in (torch.func, functorch) for name in dir(space) if not name.startswith("_")} - {"torch"}


def _described(found):
    return [
        (p.name, p.kind, p.default)
        for p in inspect.signature(found).parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]


@pytest.mark.parametrize("name", sorted(CALLABLES))
def test_every_public_name_is_there_with_its_signature(name):
    theirs = getattr(torch.func, name, None) or getattr(functorch, name)
    assert name in ours.__all__
    assert _described(getattr(ours, name)) == _described(theirs)


def _f(w, x):
    return {"a": torch.tanh(w @ x), "b": x.prod()}


PROGRAMS = {
    "grad": lambda F: F.grad(lambda x: x.sin().prod())(X),
    "grad, argnums and aux": lambda F: F.grad(lambda w, x: ((w @ x).sum(), w), argnums=(1, 0), has_aux=True)(W, X),
    "grad_and_value": lambda F: F.grad_and_value(lambda x: (x.sin().sum(), x), has_aux=True)(X),
    "grad of a tree": lambda F: F.grad(lambda p: (p["w"] @ p["x"]).square().sum())({"w": W, "x": X}),
    "vjp": lambda F: F.vjp(_f, W, X)[1]({"a": X[:2], "b": X[0]}),
    "vjp with aux": lambda F: F.vjp(lambda x: (x.sin(), x), X, has_aux=True)[2],
    "jvp": lambda F: F.jvp(_f, (W, X), (W, X)),
    "jvp with aux": lambda F: F.jvp(lambda x: (x.sin(), x), (X,), (X,), has_aux=True),
    "linearize": lambda F: F.linearize(torch.sin, X)[1](X),
    "jacrev": lambda F: F.jacrev(_f, argnums=(0, 1))(W, X),
    "jacrev in chunks": lambda F: F.jacrev(torch.sin, chunk_size=1)(X),
    "jacfwd": lambda F: F.jacfwd(_f, argnums=1)(W, X),
    "hessian": lambda F: F.hessian(lambda x: x.sin().prod())(X),
    "vmap": lambda F: F.vmap(torch.dot, in_dims=(0, None))(W, X),
    "vmap, out_dims": lambda F: F.vmap(lambda w: (w.sin(), w.sum()), in_dims=1, out_dims=(1, 0))(W),
    "vmap of trees": lambda F: F.vmap(lambda d, k: d["w"] * k, in_dims=({"w": 0}, None))({"w": W}, 3.0),
    "vmap in chunks": lambda F: F.vmap(torch.sin, chunk_size=1)(W),
    "per-sample gradients": lambda F: F.vmap(F.grad(lambda w, x: (w @ x).square().sum()), (None, 0))(W, W),
    "laplacian": lambda F: F.vmap(lambda x: torch.trace(F.hessian(lambda x: x.sin().prod())(x)))(W),
    "jacobians of jacobians": lambda F: F.jacfwd(F.jacrev(lambda x: x.sin().prod()))(X),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # torch's own linearize
def test_results_are_torchs(name):
    found, wanted = PROGRAMS[name](ours), PROGRAMS[name](torch.func)
    assert tp.tree.structure(found) == tp.tree.structure(wanted)
    for one, other in zip(tp.tree.leaves(found), tp.tree.leaves(wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


WRONG = {
    "in_dims": (ValueError, lambda F: F.vmap(torch.sin, in_dims=(0, 0))(X)),
    "a dimension": (ValueError, lambda F: F.vmap(torch.sin, in_dims=3)(X)),
    "sizes": (ValueError, lambda F: F.vmap(torch.add)(X, X[:2])),
    "out_dims": (ValueError, lambda F: F.vmap(torch.sin, out_dims=(0, 0))(X)),
    "a number of vmap": (ValueError, lambda F: F.vmap(lambda x: 3)(X)),
    "randomness": (RuntimeError, lambda F: F.vmap(torch.sin, randomness="other")(X)),
    "a draw": (RuntimeError, lambda F: F.vmap(lambda x: x * torch.rand(()))(X)),
    "no scalar": (RuntimeError, lambda F: F.grad(torch.sin)(X)),
    "argnums": (RuntimeError, lambda F: F.grad(torch.sum, argnums=1)(X)),
    "a float": (ValueError, lambda F: F.grad(lambda x: x)(3.0)),
    "a tangent": (RuntimeError, lambda F: F.jvp(torch.sin, (X,), (X[:2],))),
    "primals": (RuntimeError, lambda F: F.jvp(torch.sin, X, X)),
    "strict": (RuntimeError, lambda F: F.jvp(lambda x: torch.ones(2), (X,), (X,), strict=True)),
    "a cotangent": (RuntimeError, lambda F: F.vjp(torch.sin, X)[1](X[:2])),
    "no models": (RuntimeError, lambda F: F.stack_module_state([])),
    "strict keys": (RuntimeError, lambda F: F.functional_call(nn.Linear(1, 1), {}, (X[:1],), strict=True)),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_of_the_kind_that_torch_raises(name):
    kind, call = WRONG[name]
    for space in (ours, torch.func):
        with pytest.raises(kind):
            call(space)


def test_members_draw_their_own_numbers_or_the_same():
    def noisy(x):
        return x + nn.functional.dropout(torch.ones(8), 0.5) + torch.rand(8)

    torch.manual_seed(0)
    one, again, same = (
        ours.vmap(noisy, randomness=kind)(torch.zeros(4)) for kind in ("different", "different", "same")
    )
    assert len({tuple(row.tolist()) for row in one}) == 4 and not torch.equal(one, again)
    assert (same == same[0]).all()
    torch.manual_seed(0)
    assert torch.equal(ours.vmap(noisy, randomness="different", chunk_size=3)(torch.zeros(4)), one)
    slopes = ours.vmap(ours.grad(lambda x: noisy(x).sum()), randomness="different")(torch.zeros(4))
    assert torch.equal(slopes, torch.full((4,), 8.0))


def test_a_jacobian_of_a_function_that_draws_is_that_of_one_function():
    torch.manual_seed(0)
    for kind in ("same", "different"):
        jacobian = ours.jacfwd(lambda x: x * nn.functional.dropout(torch.ones(6), 0.5), randomness=kind)(torch.ones(6))
        assert torch.equal(jacobian, torch.diag(jacobian.diagonal())) and set(jacobian.diagonal().tolist()) <= {
            0.0,
            2.0,
        }


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(torch.tanh(self.one(x)))


def test_functional_modules_are_functorchs():
    module, x = Tied().double(), W
    func, params = ours.make_functional(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs, wanted = functorch.make_functional(module)
    assert [tuple(leaf.shape) for leaf in params] == [tuple(leaf.shape) for leaf in wanted]
    assert torch.equal(func(params, x), theirs(wanted, x)) and func.param_names == theirs.param_names
    grads = ours.grad(lambda params: func(params, x).sum())(params)
    assert torch.allclose(grads[0], torch.autograd.grad(module(x).sum(), module.one.weight)[0])
    assert not any(leaf.requires_grad for leaf in ours.make_functional(module, True)[1])
    assert all(leaf.requires_grad for leaf in module.parameters())
    with pytest.raises(RuntimeError, match="make_functional_with_buffers"):
        ours.make_functional(nn.BatchNorm1d(3))


def test_an_ensemble_of_modules_with_buffers():
    models = [nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval() for _ in range(3)]
    func, params, buffers = ours.combine_state_for_ensemble(models)
    out = ours.vmap(func, (0, 0, None))(params, buffers, W.float())
    torch.testing.assert_close(out, torch.stack([model(W.float()) for model in models]))
    mixed = [nn.Linear(1, 1), nn.Linear(1, 1).eval()], [nn.Linear(1, 1), nn.ReLU()], []
    for wrong, message in zip(mixed, ("same mode", "same class", "at least one"), strict=True):
        with pytest.raises(RuntimeError, match=message):
            ours.combine_state_for_ensemble(wrong)


def test_the_idioms_of_the_page_run_and_agree():
    rows = [
        [re.sub(r"^`|`$", "", cell.strip()) for cell in line.strip("|").split(" | ")]
        for line in PAGE.split("## Draws")[0].splitlines()
        if line.startswith("|") and "`" in line
    ]
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    space = {}
    for block in blocks:
        exec(block, space)
    for _, theirs, ours_ in rows:
        found = []
        for column in (theirs, ours_):
            space.pop("out", None)
            exec(column, space)
            found.append(space.get("out"))
        if found[0] is not None:
            torch.testing.assert_close(*found)
    assert len(rows) == 10 and space["shape"] == (5, 3) and torch.equal(space["graph"](space["x"]), space["x"].sin())
