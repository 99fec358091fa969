"""Trees are the same while `torch.compile` traces, where other functions take them apart."""

from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch

from torchpure import tree
from torchpure.errors import StructureError
from torchpure.tree import _backend


class Pair(NamedTuple):
    one: Any
    two: Any


@tree.register_dataclass
@dataclass
class Node:
    w: Any
    inner: Any


TREES = {
    "a leaf": 1,
    "a string": "x",
    "nothing": None,
    "an empty dict": {},
    "a dict": {"b": 1, "a": 2},
    "a list": [1, (2, [3]), []],
    "a named tuple": Pair(1, {"x": Pair(2, None)}),
    "a dataclass": {"n": Node(1, [Node(2, None)])},
    "ordered": OrderedDict(b=1, a=(2, 3)),
    "with defaults": defaultdict(list, b=1, a=[2]),
    "a deque": deque([1, {"x": 2}], maxlen=4),
    "None within": [None, {"a": None, "b": 1}, (None,)],
    "a set is a leaf": [{1, 2}, range(3)],
    "a class is a leaf": [Pair, int],
}


def parts(value):
    leaves, structure = tree.flatten(value)
    holes, with_holes = tree.flatten_holes(value)
    other = tree.unflatten(structure, [[leaf, "more"] for leaf in leaves])
    return {
        "leaves": leaves,
        "holes": holes,
        "rebuilt": tree.unflatten(structure, [repr(leaf) for leaf in leaves]),
        "rebuilt with holes": tree.unflatten(with_holes, [repr(leaf) for leaf in holes]),
        "size": _backend.size(structure),
        "subtrees": _backend.flatten_up_to(structure, other),
        "mapped": tree.map(lambda one, two: (one, two), value, other),
        "equal": structure == tree.flatten(other if not leaves else value)[1],
    }


@pytest.mark.parametrize("name", TREES)
def test_a_traced_tree_has_the_same_parts(name, monkeypatch):
    eager = parts(TREES[name])
    monkeypatch.setattr(_backend, "is_dynamo_compiling", lambda: True)
    assert parts(TREES[name]) == eager
    assert type(tree.map(str, TREES[name])) is type(eager["mapped"]) or not isinstance(eager["mapped"], dict)


def test_kinds_of_dicts_and_orders_of_keys_go_together(monkeypatch):
    one, two = {"b": 1, "a": 2}, OrderedDict(a=3, b=4)
    three = defaultdict(int, a=5, b=6)
    for traced in (False, True):
        monkeypatch.setattr(_backend, "is_dynamo_compiling", lambda: traced)  # noqa: B023 called at once
        assert tree.map(lambda *all_: all_, one, two, three) == {"b": (1, 4, 6), "a": (2, 3, 5)}
        assert tree.map(lambda *all_: all_, three, two, one) == {"b": (6, 4, 1), "a": (5, 3, 2)}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, [1]),
        ([1], (1,)),
        ([1, 2], [1]),
        (Pair(1, 2), (1, 2)),
        ((1, 2), Pair(1, 2)),
        (Node(1, 2), Pair(1, 2)),
        ([None], [1]),
        ({"a": [1]}, {"a": None}),
        ([[]], [1]),
    ],
)
def test_other_nodes_are_refused(one, two, monkeypatch):
    for traced in (False, True):
        monkeypatch.setattr(_backend, "is_dynamo_compiling", lambda: traced)  # noqa: B023 called at once
        with pytest.raises(StructureError, match="tree.map: trees differ"):
            tree.map(lambda a, b: a, one, two)


@pytest.mark.compile
def test_a_compiled_function_takes_trees_apart():
    def total(one, two):
        summed = tree.map(lambda a, b: a + 2 * b, one, two)
        return Node({"sum": summed, "none": None}, Pair(tree.leaves(one)[0], []))

    def values(scale):
        def filled():
            return torch.full((2,), scale)

        return {"b": filled(), "a": [Pair(filled(), None), Node(filled(), (filled(),))]}

    fast = torch.compile(total, fullgraph=True, backend="eager")
    one, two = values(1.0), values(3.0)
    got, wanted = fast(one, two), total(one, two)
    assert tree.structure(got) == tree.structure(wanted)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(got), tree.leaves(wanted), strict=True))
    assert list(got.w["sum"]) == ["b", "a"] and type(got.w["sum"]["a"][0]) is Pair
