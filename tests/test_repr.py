"""What the library's objects print as: at most twelve lines, whatever they hold."""

import pytest
import torch
from torch import nn

import torchpure as tp

X, Y = torch.linspace(0, 1, 12).reshape(6, 2), torch.ones(6, 1)


def deep():
    layers = [part for _ in range(40) for part in (nn.Linear(2, 2), nn.BatchNorm1d(2))]
    return nn.Sequential(*layers, nn.Linear(2, 1))


def fitted(model, steps=3):
    return tp.fit(model, (X, Y), optimizer=tp.optim.adam(1e-2), steps=steps)


def swept(**space):
    return tp.sweep(lambda key, **point: {"loss": torch.ones(3)}, space, key=tp.random.key(0), seeds=2, jit=False)


def long_chain():
    return tp.optim.chain(*[tp.optim.clip(1.0) for _ in range(50)], tp.optim.adam(0.1))


LARGE = {
    "functional": lambda: tp.functional(deep()),
    "ensemble": lambda: tp.ensemble(tp.functional(deep()), 4),
    "fit": lambda: fitted(deep()),
    "sweep": lambda: swept(**{f"name{i}": [1, 2] if i < 2 else [1] for i in range(20)}),
    "member": lambda: tp.train.member(swept(**{f"name{i}": [1] for i in range(20)}), 0),
    "optimizer": long_chain,
    "graph": lambda: tp.make_graph(lambda *xs: sum(x.sin() for x in xs))(*[X] * 30),
    "progress": lambda: next(tp.train.loop(lambda p, x: (p - x).square().sum(), X[0], [(X[1],)], tp.optim.sgd(0.1))),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_repr_has_at_most_twelve_lines_of_120_characters(name):
    lines = repr(LARGE[name]()).splitlines()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 120


def test_a_functional_shows_its_module_its_shapes_and_what_is_frozen():
    module = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5))
    module[1].bias.requires_grad_(False)
    assert repr(tp.functional(module)).splitlines() == [
        "Functional of Sequential: 25 parameters in 4 tensors, float32",
        "  0.weight (5, 2)",
        "  0.bias (5,)",
        "  1.weight (5,)",
        "  1.bias (5,)",
        "  frozen: 1.bias",
        "  state: 11 numbers in 3 tensors, float32 and int64: 1.running_mean, 1.running_var, 1.num_batches_tracked",
    ]


def test_an_ensemble_shows_its_members():
    first = repr(tp.ensemble([nn.Linear(2, 1) for _ in range(3)])).splitlines()[0]
    assert first == "Functional of 3 × Linear: 9 parameters in 2 tensors, float32"


def test_a_fit_shows_its_steps_and_its_first_and_last_loss():
    result = fitted(nn.Linear(2, 1))
    first, second, *_, last = repr(result).splitlines()
    assert first == f"Fit: 3 steps, loss {result.history[0].item():.4g} to {result.history[-1].item():.4g}"
    assert second == "  params: 3 numbers in 2 tensors, float32"
    assert last == "  opt_state: AdamState, 7 numbers in 5 tensors, float32 and float64"
    assert repr(fitted(nn.Linear(2, 1), steps=0)).startswith("Fit: 0 steps\n")


def test_a_sweep_shows_its_values_or_their_bounds():
    assert repr(swept(learning_rate=[i / 10 for i in range(1, 9)], width=[1, 2])).splitlines() == [
        "Sweep: 32 members, each with a key",
        "  learning_rate: 8 values, 0.1 to 0.8",
        "  width: 1, 2",
        "  results: 96 numbers in 1 tensor, float32",
        "    loss (32, 3)",
    ]
    assert "  name: 'a', 'b', 'c', 'd', 'e', 'f', … 1 more" in repr(swept(name=list("abcdefg")))


def test_an_optimizer_shows_its_factory_its_numbers_and_its_parts():
    optim = tp.optim
    plain = "adam(learning_rate=0.1, weight_decay=0, b1=0.9, b2=0.999, eps=1e-08, eps_root=0, nesterov=False)"
    assert repr(optim.adam(0.1)) == f"Optimizer {plain}"
    assert repr(optim.chain(optim.clip(1.0), optim.adam(0.1))).splitlines() == [
        "Optimizer chain",
        "  clip(max_delta=1)",
        f"  {plain}",
    ]
    assert "learning_rate=a schedule" in repr(optim.adamw(optim.linear_schedule(1.0, 0.0, 10)))
    assert repr(optim.identity()) == "Optimizer identity"


def test_an_optimizer_of_anybody_has_a_repr():
    def update(grads, state, params):
        return grads, state

    assert repr(tp.optim.Optimizer(lambda params: None, update)).startswith("Optimizer test_an_optimizer_of_anybody")
    assert repr(tp.optim.Optimizer(lambda params: None, max)) == "Optimizer max"


@pytest.mark.parametrize("transform", [tp.vmap, tp.jacfwd, tp.make_graph], ids=["vmap", "jacfwd", "make_graph"])
def test_a_repr_under_a_transform_shows_shapes(transform):
    seen, net = [], tp.functional(nn.Linear(2, 1))

    def run(learning_rate):
        optimizer = tp.optim.sgd(learning_rate)
        result = tp.fit(net, (X, Y), optimizer=optimizer, steps=2)
        seen.append((repr(optimizer), repr(result)))
        return result.history[-1]

    transform(run)(torch.full((1,), 0.1)[0] if transform is not tp.vmap else torch.full((3,), 0.1))
    assert "learning_rate=a float32 tensor of shape ()" in seen[0][0]
    assert seen[0][1].startswith("Fit: 2 steps, loss a")


def test_a_graph_shows_its_operations_and_its_arguments():
    def double(x, scale):
        return {"y": x.sin() * scale["by"] + x.sin()}

    text = repr(tp.make_graph(double)(X, {"by": 2.0}))
    assert text.startswith("Graph of `double` (test_repr.py:") and "4 operations; print shows them" in text
    assert text.splitlines()[1:] == [
        "  argument 0: a float32 tensor of shape (6, 2) on cpu",
        "  argument 1 at `by`: float 2.0",
        "  sin × 2, mul.Tensor × 1, add.Tensor × 1",
    ]
