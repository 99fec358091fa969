"""Split parameters in two trees and merge them again."""

import re

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.errors import StructureError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.layers(x) * self.scale


NET = tp.functional(Net())
X = torch.linspace(-1, 1, 15).reshape(5, 3)
CHOICES = {
    "glob": ("layers.*.bias", ["layers.0.bias", "layers.1.bias", "layers.2.bias"]),
    "globs": (["scale", "*.0.weight"], ["layers.0.weight", "scale"]),
    "predicate": (lambda path, leaf: leaf.ndim == 2, ["layers.0.weight", "layers.2.weight"]),
    "class": (nn.BatchNorm1d, ["layers.1.weight", "layers.1.bias"]),
    "class of all": (Net, ["scale"]),
    "classes and a glob": (
        (nn.Linear, "scale"),
        ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias", "scale"],
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_law_merge_undoes_partition(name):
    where, expected = CHOICES[name]
    chosen, rest = tp.partition(NET.params, where, net=NET)
    assert sorted(key for key, leaf in chosen.items() if leaf is not None) == sorted(expected)
    assert list(chosen) == list(rest) == list(NET.params)
    merged = tp.merge(chosen, rest)
    assert all(merged[key] is NET.params[key] for key in NET.params)
    assert all(tp.merge(rest, chosen)[key] is leaf for key, leaf in merged.items())


@pytest.mark.parametrize("form", [tp.model.nested, lambda p: tuple(p.values())], ids=["nested", "tuple"])
def test_tuples_and_nested_dicts_can_be_split(form):
    params = form(NET.params)
    chosen, rest = tp.partition(params, lambda path, leaf: leaf.ndim == 2)
    assert len([leaf for leaf in tp.tree.leaves(chosen) if leaf is not None]) == 2
    assert torch.equal(NET.apply(tp.merge(chosen, rest), NET.state, X)[0], NET.apply(params, NET.state, X)[0])


def test_frozen_leaves_get_no_gradient_and_no_state():
    trained, frozen = tp.partition(NET.params, "layers.2.*")

    def loss(trained):
        return NET.apply(tp.merge(trained, frozen), NET.state, X)[0].square().sum()

    optimizer = tp.optim.adam(0.1)
    state = optimizer.init(trained)
    assert [key for key, leaf in state.mean.items() if leaf is not None] == ["layers.2.weight", "layers.2.bias"]
    grads = tp.grad(loss)(trained)
    assert {key for key, leaf in grads.items() if leaf is None} == {
        key for key, leaf in trained.items() if leaf is None
    }
    moved, _ = optimizer.step(grads, state, trained)
    assert moved["scale"] is None and not torch.equal(moved["layers.2.bias"], trained["layers.2.bias"])
    together = tp.vmap(tp.grad(loss))(tp.stack([trained, moved]))
    torch.testing.assert_close(together["layers.2.bias"][0], grads["layers.2.bias"])


def test_merge_matches_by_key():
    assert tp.merge({"a": 1, "b": None, "c": None}, {"c": 3, "b": 2, "a": None}) == {"a": 1, "b": 2, "c": 3}


ERRORS = {
    "glob": (
        lambda: tp.partition(NET.params, "layer.*"),
        StructureError,
        "partition: `layer.*` matches no path: the paths are scale, layers.0.weight",
    ),
    "no net": (
        lambda: tp.partition(NET.params, nn.Linear),
        TypeError,
        "partition: to choose by the class Linear, give the net",
    ),
    "no such module": (
        lambda: tp.partition(NET.params, nn.Conv2d, net=NET),
        StructureError,
        "partition: no parameter belongs to a Conv2d",
    ),
    "number": (lambda: tp.partition(NET.params, 3), TypeError, "wanted a glob, a predicate"),
    "nothing": (lambda: tp.merge(), StructureError, "merge: wanted at least one part"),
    "two": (
        lambda: tp.merge({"a": 1, "b": 2}, {"a": None, "b": 3}),
        StructureError,
        "merge: 2 parts have a leaf at `b`",
    ),
    "structure": (lambda: tp.merge({"a": 1}, {"b": 3}), StructureError, "merge: "),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_messages(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=re.escape(message)):
        call()
