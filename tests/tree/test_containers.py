"""Containers of every kind, their paths, and ravel."""

import dataclasses
from collections import OrderedDict, defaultdict, deque, namedtuple

import pytest
import torch

import torchpure as tp
from torchpure import tree
from torchpure.errors import StructureError

One, Other = namedtuple("One", "a b"), namedtuple("Other", "a b")


@tree.register_dataclass
@dataclasses.dataclass(frozen=True)
class Frozen:
    first: object
    cached: object = dataclasses.field(default=0, init=False)
    second: object = None


CONTAINERS = {
    "named tuple": One(1, [2]),
    "frozen dataclass": Frozen(1, {"x": 2}),
    "ordered dict": OrderedDict(z=1, a=2),
    "default dict": defaultdict(list, {"z": 1, "a": 2}),
    "deque": deque([1, 2], maxlen=4),
    "number keys": {3: 1, 1: 2},
    "mixed keys": {"b": 1, 2: 2},
    "tuple keys": {("t", 1): 1, "x": (2,)},
    "nothing between": [None, 1, (), {}, [2]],
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_map_keeps_the_container(name):
    value = CONTAINERS[name]
    doubled = tree.map(lambda leaf: leaf * 2, value)
    assert type(doubled) is type(value) and tree.leaves(value) == [1, 2] and tree.leaves(doubled) == [2, 4]
    tree.check_same(value, doubled)
    assert tree.structure(value) == tree.structure(doubled)
    assert hash(tree.structure(value)) == hash(tree.structure(doubled))
    assert tree.unflatten(tree.structure(value), [1, 2]) == value
    assert tree.map(lambda a, b: a + b, value, doubled) == tree.map(lambda leaf: leaf * 3, value)


def test_paths_of_every_container():
    nest = {("t", 1): 1, "p": [Frozen(2, None), One(3, torch.max(torch.eye(2), 0))], 4: OrderedDict(z=5)}
    assert tree.paths(nest) == ["('t', 1)", "p.0.first", "p.1.a", "p.1.b.values", "p.1.b.indices", "4.z"]


def test_children_name_one_level():
    assert tree.children(One(1, [2])) == {"a": 1, "b": [2]} and tree.children(Frozen(1)) == {"first": 1, "second": None}
    assert tree.children(None) == {} and tree.children(3) is None and tree.children([4]) == {0: 4}


def test_dicts_of_other_types_and_orders_match_by_key():
    for other in ({"b": 20, "a": 10}, OrderedDict(b=20, a=10), defaultdict(int, b=20, a=10)):
        result = tree.map(lambda a, b: (a, b), OrderedDict(a=1, b=2), other)
        assert result == OrderedDict(a=(1, 10), b=(2, 20)) and type(result) is OrderedDict
        tree.check_same({"a": 1, "b": 2}, other)


def test_map_of_many_trees():
    assert tree.map(lambda *row: sum(row), [1, (2,)], [10, (20,)], [100, (200,)]) == [111, (222,)]
    with pytest.raises(StructureError, match="tree.map: trees differ at `1`: wanted tuple of 1, got list of 1"):
        tree.map(lambda *row: sum(row), [1, (2,)], [10, (20,)], [100, [200]])


def test_map_passes_subtrees_below_a_leaf_of_the_first_tree():
    assert tree.map(lambda a, b: b, {"x": 1}, {"x": [1, None]}) == {"x": [1, None]}


DIFFERENT = {
    "named tuples": (One(1, 2), Other(1, 2), "at `.`: wanted One of 2, got Other of 2"),
    "tuple": ((1, 2), One(1, 2), "at `.`: wanted tuple of 2, got One of 2"),
    "dataclass": ({"p": Frozen(1)}, {"p": {"first": 1, "second": None}}, "at `p`: wanted Frozen of 2, got dict of 2"),
    "below a dataclass": ({"p": Frozen(1, [2])}, {"p": Frozen(1, (2,))}, "at `p.second`: wanted list of 1, got tuple"),
    "first of two": ([(1,), (2,)], [[1], [2]], "at `0`: wanted tuple of 1, got list of 1"),
    "both ways": ({"a": 1, "b": 2}, {"a": 1, "c": 2}, r"at `.`: .* \(missing 'b'; unexpected 'c'\)"),
    "many keys": ({str(i): i for i in range(9)}, {}, "wanted keys '0', '1', '2', '3', '4', '5', …, got none"),
    "node for None": (None, [1], "at `.`: wanted None, got list of 1"),
    "None for node": ([1], None, "at `.`: wanted list of 1, got None"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_first_difference_is_named(name):
    wanted, got, message = DIFFERENT[name]
    with pytest.raises(StructureError, match=f"tree.check_same: trees differ .*{message}"):
        tree.check_same(wanted, got)
    with pytest.raises(StructureError, match=message):
        tree.align(tree.structure(wanted), wanted, got, "somebody")
    with pytest.raises(StructureError, match="somebody: trees differ"):
        tree.check_same(wanted, got, caller="somebody")


@pytest.mark.parametrize(
    ("wanted", "got", "message"),
    [
        ({"a": None}, {"a": 1}, "at `a`: wanted None, got int 1"),
        ({"a": 1}, {"a": None}, "at `a`: wanted int 1, got None"),
        ({"a": torch.ones(2)}, {"a": [1]}, r"at `a`: wanted a float32 tensor of shape \(2,\), got list of 1"),
    ],
)
def test_differences_between_leaf_node_and_none(wanted, got, message):
    with pytest.raises(StructureError, match=message):
        tree.check_same(wanted, got)


@pytest.mark.parametrize("value", [int, Frozen(1), 3])
def test_register_dataclass_needs_a_dataclass(value):
    with pytest.raises(TypeError, match="register_dataclass: wanted a dataclass, got"):
        tree.register_dataclass(value)


def test_a_dataclass_can_be_input_and_output_of_torch_func():
    result = torch.func.vmap(lambda x: Frozen(x, {"square": x**2}))(torch.arange(3.0))
    assert type(result) is Frozen and torch.equal(result.second["square"], torch.tensor([0.0, 1.0, 4.0]))
    gradient = torch.func.grad(lambda p: (p.first * p.second).sum())(Frozen(torch.ones(2), torch.full((2,), 3.0)))
    assert torch.equal(gradient.first, torch.full((2,), 3.0)) and type(gradient) is Frozen


def test_unravel_under_every_transform():
    nest = {"w": torch.arange(4.0, dtype=torch.float64).reshape(2, 2), "b": (torch.ones(3, dtype=torch.float64),)}
    vector, unravel = tree.ravel(nest)

    def loss(t):
        return (t["w"] ** 2).sum() + (t["b"][0] ** 3).sum()

    gradient = torch.func.grad(lambda v: loss(unravel(v)))(vector)
    assert torch.equal(gradient, tree.ravel(tp.grad(loss)(nest))[0])
    through = torch.func.grad(lambda t: (tree.ravel(t)[0] ** 2).sum())(nest)
    assert torch.equal(tree.ravel(through)[0], 2 * vector)
    rows = torch.func.vmap(lambda s: tree.ravel(tree.scale(nest, s))[0])(torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert torch.equal(rows, torch.stack([vector, 2 * vector]))
    out, tangent = torch.func.jvp(lambda v: unravel(v)["b"][0], (vector,), (vector * 2,))
    assert torch.equal(out, nest["b"][0]) and torch.equal(tangent, 2 * out)


def test_unravel_restores_dtypes_and_ravel_copies():
    nest = [torch.ones(2), torch.tensor([1 + 2j]), torch.tensor(True), torch.arange(2), None, torch.zeros(0)]
    vector, unravel = tree.ravel(nest)
    assert vector.dtype == torch.complex64 and vector.shape == (6,)
    back = unravel(vector)
    assert all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(tree.leaves(nest), tree.leaves(back), strict=True)
    )
    vector.zero_()
    assert torch.equal(nest[0], torch.ones(2))
    with pytest.raises(StructureError, match="unravel: wanted a vector of shape .*, got list of 1"):
        unravel([1.0])
    with pytest.raises(StructureError, match=r"unravel: wanted a vector of shape \(6,\), got .* \(6, 1\)"):
        unravel(torch.ones(6, 1))
