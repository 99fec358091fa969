"""Trees: structure, paths, errors and arithmetic."""

import dataclasses
from collections import OrderedDict, defaultdict
from typing import NamedTuple

import pytest
import torch
from torch.testing import assert_close

from torchpure import grad, jvp, tree, vmap
from torchpure.errors import StructureError


class Pair(NamedTuple):
    one: object
    two: object


@tree.register_dataclass
@dataclasses.dataclass
class Point:
    x: object
    y: object


NEST = {"z": 1, "a": [Pair(2.0, {"k": None}), "s"], "p": Point(3, (4,))}


def test_order_paths_and_none():
    assert tree.leaves(NEST) == [1, 2.0, "s", 3, 4]
    assert tree.paths(NEST) == ["z", "a.0.one", "a.1", "p.x", "p.y.0"]
    assert tree.paths(5) == ["."] and tree.leaves(None) == [] and tree.leaves({}) == []
    assert tree.unflatten(tree.structure(NEST), tree.leaves(NEST)) == NEST


@pytest.mark.parametrize("kind", [OrderedDict, lambda items: defaultdict(int, items), dict])
def test_dicts_keep_their_order_and_kind(kind):
    one = kind([("b", 1), ("a", 2)])
    assert tree.leaves(one) == [1, 2]
    doubled = tree.map(lambda leaf: 2 * leaf, one)
    assert doubled == kind([("b", 2), ("a", 4)]) and list(doubled) == ["b", "a"]


def test_result_tuples_of_torch_are_nodes():
    result = torch.max(torch.eye(2), 0)
    assert type(tree.map(lambda leaf: leaf, result)) is type(result)


def test_a_dataclass_passes_through_torch_func():
    out = torch.func.vmap(lambda x: Point(x, x * 2))(torch.arange(3.0))
    assert torch.equal(out.y, torch.arange(3.0) * 2)
    assert torch.equal(vmap(lambda x: Point(x, None))(torch.arange(3.0)).x, torch.arange(3.0))
    with pytest.raises(TypeError, match="register_dataclass: wanted a dataclass, got"):
        tree.register_dataclass(int)


def test_map_matches_by_key():
    assert tree.map(lambda a, b: (a, b), {"x": 1, "y": 2}, {"y": 20, "x": 10}) == {"x": (1, 10), "y": (2, 20)}
    assert tree.map(lambda a, b: b, {"x": 1}, {"x": None}) == {"x": None}


def test_ordered_lists_leaves_by_key():
    shape = tree.structure({"x": 1, "y": {"b": 2, "a": None}})
    assert tree.ordered(shape, {"y": {"a": None, "b": 20}, "x": 10}, "here") == [10, 20]
    with pytest.raises(StructureError, match="here: trees differ at `y.a`: wanted None, got int 3"):
        tree.ordered(shape, {"y": {"a": 3, "b": 20}, "x": 10}, "here")
    with pytest.raises(StructureError, match="here: trees differ at `x`: wanted a leaf, got tuple of 2"):
        tree.ordered(shape, {"y": {"a": None, "b": 20}, "x": (1, 2)}, "here")


DIFFERENT = {
    "missing": ({"a": {"w": 1, "b": 2}}, {"a": {"w": 1}}, r"at `a`: wanted keys 'w', 'b', got 'w' \(missing 'b'\)"),
    "unexpected": ({"a": 1}, {"a": 1, "c": 2}, r"at `\.`: wanted keys 'a', got 'a', 'c' \(unexpected 'c'\)"),
    "length": ([1, [2, 3]], [1, [2]], "at `1`: wanted 2 items, got 1"),
    "kind": ({"a": [1]}, {"a": (1,)}, "at `a`: wanted list of 1, got tuple of 1"),
    "node": ({"a": [1]}, {"a": torch.ones(2)}, r"at `a`: wanted list of 1, got a float32 tensor of shape \(2,\)"),
    "none": ({"a": None}, {"a": 3}, "at `a`: wanted None, got int 3"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_differences_name_the_first_path(name):
    wanted, got, message = DIFFERENT[name]
    with pytest.raises(StructureError, match=f"tree.check_same: trees differ {message}"):
        tree.check_same(wanted, got)
    with pytest.raises(StructureError, match=f"tree.map: trees differ {message}"):
        tree.map(lambda a, b: a, wanted, got)
    tree.check_same(wanted, wanted)


def test_leaf_against_node_differs_in_structure():
    with pytest.raises(StructureError, match="at `a`: wanted int 1, got list of 1"):
        tree.check_same({"a": 1}, {"a": [1]})


def test_law_unravel_undoes_ravel():
    nest = {
        "w": torch.randn(2, 3, dtype=torch.float64),
        "n": torch.tensor(3),
        "h": (torch.ones(2, dtype=torch.float16),),
    }
    vector, unravel = tree.ravel(nest)
    assert vector.shape == (9,) and vector.dtype == torch.float64
    for one, two in zip(tree.leaves(nest), tree.leaves(unravel(vector)), strict=True):
        assert torch.equal(one, two) and one.dtype == two.dtype
    assert tree.ravel({})[1](torch.zeros(0)) == {}
    assert torch.equal(grad(lambda v: (unravel(v)["w"] ** 2).sum())(vector)[:6], 2 * vector[:6])
    assert vmap(lambda v: unravel(v)["w"])(torch.stack([vector, vector])).shape == (2, 2, 3)
    with pytest.raises(StructureError, match=r"unravel: wanted a vector of shape \(9,\), got .* \(8,\)"):
        unravel(vector[:8])
    with pytest.raises(StructureError, match="tree.ravel: wanted tensors only, got str 'x' at `b`"):
        tree.ravel({"a": torch.ones(1), "b": "x"})


def _one(dtype):
    return {"w": torch.tensor([1.5, -2.0], dtype=dtype), "b": (torch.tensor(0.25, dtype=dtype),)}


def _two(dtype):
    return {"w": torch.tensor([0.5, 3.0], dtype=dtype), "b": (torch.tensor(-1.0, dtype=dtype),)}


BINARY = {
    "add": (tree.add, lambda a, b: a + b),
    "sub": (tree.sub, lambda a, b: a - b),
    "lerp": (lambda a, b: tree.lerp(a, b, 0.3), lambda a, b: a + 0.3 * (b - a)),
    "lerp by tensor": (
        lambda a, b: tree.lerp(a, b, torch.tensor(0.3, dtype=torch.float64)),
        lambda a, b: a + 0.3 * (b - a),
    ),
    "scale": (lambda a, b: tree.scale(a, 3.0), lambda a, b: a * 3.0),
    "scale by tensor": (lambda a, b: tree.scale(a, torch.tensor(3.0, dtype=torch.float64)), lambda a, b: a * 3.0),
    "where": (lambda a, b: tree.where(torch.tensor(False), a, b), lambda a, b: b),
    "zeros_like": (lambda a, b: tree.zeros_like(a), lambda a, b: torch.zeros_like(a)),
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128, torch.bfloat16])
def test_arithmetic_keeps_dtypes_on_every_code_path(name, dtype):
    fn, leafwise = BINARY[name]
    a, b = _one(dtype), _two(dtype)
    before = [leaf.clone() for leaf in tree.leaves((a, b))]
    expected = tree.map(leafwise, a, b)
    batched = vmap(lambda a, b: fn(a, b))(*(tree.map(lambda leaf: torch.stack([leaf, leaf]), t) for t in (a, b)))
    watched = fn(tree.map(lambda leaf: leaf.clone().requires_grad_(), a), b)
    first = tree.map(lambda leaf: leaf[1], batched)
    rtol = {torch.bfloat16: 2e-2, torch.float32: 1e-6}.get(dtype, 1e-14)
    for result in (fn(a, b), first, watched):
        for actual, wanted in zip(tree.leaves(result), tree.leaves(expected), strict=True):
            assert_close(actual.detach(), wanted, rtol=rtol, atol=1e-2 if dtype == torch.bfloat16 else 0)
    assert all(map(torch.equal, before, tree.leaves((a, b))))
    if name not in ("where", "zeros_like"):
        assert all(leaf.requires_grad for leaf in tree.leaves(watched))


def test_dot_and_norm():
    a, b = _one(torch.float64), _two(torch.float64)
    assert tree.dot(a, b) == 1.5 * 0.5 - 2 * 3 - 0.25
    assert_close(tree.norm(a), torch.tensor(6.3125, dtype=torch.float64).sqrt(), rtol=1e-15, atol=0)
    z = torch.tensor([1 + 2j], dtype=torch.complex128)
    assert tree.dot(z, z) == 5 and tree.norm(z) == 5**0.5
    assert tree.norm({}) == 0 and tree.dot({}, {}) == 0
    zero = torch.zeros(2, dtype=torch.float64)
    assert torch.equal(grad(lambda x: tree.norm((x,)))(zero), zero)
    out, tangent = jvp(lambda x: tree.norm((x, x)), (torch.tensor([3.0, 4.0]),), (torch.tensor([1.0, 0.0]),))
    assert_close(out, torch.tensor(50.0**0.5))
    assert_close(tangent, torch.tensor(6 / 50.0**0.5))
    assert_close(
        tree.norm({"a": torch.ones(2), "b": torch.ones(2, dtype=torch.float64)}), torch.tensor(2.0, dtype=torch.float64)
    )


def test_numbers_are_allowed_and_strings_are_an_error():
    assert tree.add({"a": 1, "b": 2.5}, {"a": 2, "b": 0.5}) == {"a": 3, "b": 3.0}
    assert tree.scale((2, 3.0), 2) == (4, 6.0) and tree.zeros_like((2, 3.0)) == (0, 0.0)
    with pytest.raises(StructureError, match="tree.scale: cannot compute with str 'x' at `b.c`"):
        tree.scale({"a": torch.ones(1), "b": {"c": "x"}}, 2.0)
    with pytest.raises(StructureError, match="tree.add: trees differ at"):
        tree.add({"a": torch.ones(1)}, {"b": torch.ones(1)})


def test_plain_is_false_under_every_transform_and_trace():
    ones = torch.ones(2)
    assert tree.plain([ones]) and not tree.plain([ones.clone().requires_grad_()]) and not tree.plain(["x"])
    with torch.no_grad():
        assert tree.plain([ones.clone().requires_grad_()])
    seen = []
    vmap(lambda x: seen.append(tree.plain([ones])) or x)(ones)
    grad(lambda x: seen.append(tree.plain([x])) or x.sum())(ones)
    jvp(lambda x: seen.append(tree.plain([ones])) or x, (ones,), (ones,))
    assert seen == [False] * 3
