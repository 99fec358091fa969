"""Tree arithmetic equals plain torch, leaf by leaf, on every code path."""

import pytest
import torch
from torch.testing import assert_close

import torchpure as tp
from torchpure import tree
from torchpure.errors import StructureError

F32, F64, C128, I64 = torch.float32, torch.float64, torch.complex128, torch.int64

BINARY = {
    "add": (tree.add, lambda a, b: a + b),
    "sub": (tree.sub, lambda a, b: a - b),
    "lerp": (lambda a, b: tree.lerp(a, b, 0.25), lambda a, b: a + 0.25 * (b - a)),
    "where": (lambda a, b: tree.where(torch.tensor(True), a, b), lambda a, b: torch.where(torch.tensor(True), a, b)),
}

PAIRS = {
    "float64": (torch.arange(3.0, dtype=F64), torch.ones(3, dtype=F64)),
    "complex": (torch.arange(3.0, dtype=F64) * (1 + 2j), torch.ones(3, dtype=C128)),
    "mixed": (torch.ones(3), torch.arange(3.0, dtype=F64)),
    "real and complex": (torch.ones(3, dtype=F64), torch.ones(3, dtype=C128) * 1j),
    "integers": (torch.arange(3), torch.ones(3, dtype=I64) * 4),
    "integer and float": (torch.arange(3), torch.ones(3, dtype=F64)),
    "broadcast": (torch.ones(2, 3, dtype=F64), torch.arange(3.0, dtype=F64)),
    "tensor and number": (torch.arange(3.0, dtype=F64), 2.0),
    "number and tensor": (2.0, torch.arange(3.0, dtype=F64)),
    "empty": (torch.zeros(0, 2, dtype=F64), torch.zeros(0, 2, dtype=F64)),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", BINARY)
def test_binary_operations(name, pair):
    ours, plain = BINARY[name]
    a, b = PAIRS[pair]
    one, two = {"x": (a, None), "y": [a]}, {"y": [b], "x": (b, None)}
    result = ours(one, two)
    tree.check_same(one, result)
    for leaf in tree.leaves(result):
        assert_close(leaf, plain(a, b), rtol=1e-15, atol=0)


@pytest.mark.parametrize("pair", PAIRS)
def test_dot_and_norm(pair):
    a, b = (torch.as_tensor(part) for part in torch.broadcast_tensors(*map(torch.as_tensor, PAIRS[pair])))
    dot = (a.conj() * b).sum()
    assert_close(tree.dot({"x": a, "y": [a]}, {"x": b, "y": [b]}), dot + dot, rtol=1e-15, atol=0)
    norm = ((a.abs() ** 2).sum() + (b.abs() ** 2).sum()).double().sqrt()
    result = tree.norm({"x": a, "y": [b]})
    assert result.is_floating_point() and result.shape == ()
    single = any(
        leaf.dtype in (F32, I64) for leaf in (a, b)
    )  # the norm of each leaf is computed in the leaf's precision
    assert_close(result.double(), norm, rtol=1e-7 if single else 1e-15, atol=0)


@pytest.mark.parametrize("factor", [3, 0.5, 2j, torch.tensor(0.5, dtype=F64), torch.tensor(2)])
@pytest.mark.parametrize("dtype", [F32, F64, C128])
def test_scale(factor, dtype):
    leaf = torch.arange(3.0).to(dtype)
    (result,) = tree.scale((leaf,), factor)
    assert_close(result, leaf * (factor if not isinstance(factor, torch.Tensor) else factor.item()))
    if not isinstance(factor, complex):
        assert result.dtype == dtype


EMPTY = [{}, (), None, {"a": None, "b": [()]}]


@pytest.mark.parametrize("empty", EMPTY)
def test_empty_trees(empty):
    for fn, _ in BINARY.values():
        assert fn(empty, empty) == empty
    assert tree.scale(empty, 2.0) == empty and tree.zeros_like(empty) == empty
    assert tree.norm(empty) == 0 and tree.dot(empty, empty) == 0


def test_python_numbers_keep_their_type():
    assert tree.zeros_like({"a": 3, "b": 2.5, "c": 1j}) == {"a": 0, "b": 0.0, "c": 0j}
    assert tree.lerp([1.0], [3.0], 0.5) == [2.0]
    assert tree.norm([3, 4]) == 5 and tree.norm([torch.tensor([3.0]), 4.0]) == 5
    assert tree.dot([2, 3.0], [5, 7.0]) == 31


OTHERS = {
    "string": ("x", "str 'x'"),
    "None": (None, "None"),
    "node": ([torch.ones(1)], "list of 1"),
}
TAKING_TWO = {**{name: fn for name, (fn, _) in BINARY.items()}, "dot": tree.dot}


@pytest.mark.parametrize("first", [torch.ones(1), 1.0], ids=["tensor", "number"])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", TAKING_TWO)
def test_a_leaf_that_is_no_number_is_an_error_with_its_path(name, other, first):
    value, described = OTHERS[other]
    message = rf"tree\.{name}: cannot compute with {described} at `a\.w`: wanted numbers"
    with pytest.raises(StructureError, match=message):
        TAKING_TWO[name]({"b": first, "a": {"w": first}}, {"b": first, "a": {"w": value}})


@pytest.mark.parametrize(
    "fn", [lambda t: tree.scale(t, 2.0), tree.norm, tree.zeros_like], ids=["scale", "norm", "zeros"]
)
def test_a_string_leaf_is_an_error_with_its_path(fn):
    with pytest.raises(StructureError, match="cannot compute with str 'tanh' at `a.1`: wanted numbers"):
        fn({"a": (torch.ones(1), "tanh")})


def test_shapes_that_do_not_fit_raise_torchs_error():
    with pytest.raises(RuntimeError, match="must match"):
        tree.add([torch.ones(2)], [torch.ones(3)])


def _plain_norm(leaves):
    return torch.cat([leaf.reshape(-1) for leaf in leaves]).norm()


WATCHED = {
    "add": (lambda a, b: tree.add(a, b), lambda a, b: [x + y for x, y in zip(a, b, strict=True)]),
    "sub": (lambda a, b: tree.sub(a, b), lambda a, b: [x - y for x, y in zip(a, b, strict=True)]),
    "lerp": (lambda a, b: tree.lerp(a, b, 0.3), lambda a, b: [x + 0.3 * (y - x) for x, y in zip(a, b, strict=True)]),
    "scale": (lambda a, b: tree.scale(a, 0.3), lambda a, b: [x * 0.3 for x in a]),
    "dot": (lambda a, b: [tree.dot(a, b)], lambda a, b: [sum((x * y).sum() for x, y in zip(a, b, strict=True))]),
    "norm": (lambda a, b: [tree.norm(a)], lambda a, b: [_plain_norm(a)]),
}


def _inputs():
    a = [torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=F64), torch.tensor([4.0, -1.0], dtype=F64)]
    return a, [leaf.flip(0) * 2 for leaf in a]


@pytest.mark.parametrize("name", WATCHED)
def test_every_code_path_gives_the_same_result_and_derivative(name):
    ours, plain = WATCHED[name]
    a, b = _inputs()
    kept = [leaf.clone() for leaf in (*a, *b)]
    expected = plain(a, b)
    leaves = [leaf.clone().requires_grad_() for leaf in a]
    ours_out, plain_out = ours(leaves, b), plain(leaves, b)
    batched = torch.func.vmap(lambda one: ours([one, a[1]], b)[0])(torch.stack([a[0], a[0] * 2]))
    tangents = torch.func.jvp(lambda *one: ours(list(one), b), tuple(a), tuple(b))[1]
    for number, want in enumerate(expected):
        assert_close(ours(a, b)[number], want, rtol=1e-14, atol=0)
        assert_close(ours_out[number].detach(), want, rtol=1e-14, atol=0)
        wanted = torch.func.jvp(lambda *one, i=number: plain(list(one), b)[i], tuple(a), tuple(b))[1]
        assert_close(tangents[number], wanted, rtol=1e-13, atol=0)
    assert_close(batched[1], plain([a[0] * 2, a[1]], b)[0], rtol=1e-14, atol=0)
    gradients = torch.autograd.grad(sum(out.sum() for out in ours_out), leaves, allow_unused=True)
    wanted = torch.autograd.grad(sum(out.sum() for out in plain_out), leaves, allow_unused=True)
    for ours_grad, plain_grad in zip(gradients, wanted, strict=True):
        assert_close(ours_grad, plain_grad, rtol=1e-13, atol=1e-15)
    assert all(map(torch.equal, (*a, *b), kept))


def test_the_gradient_of_norm_at_zero_is_zero():
    zeros = {"a": torch.zeros(2, dtype=F64), "b": torch.zeros((), dtype=F64)}
    for transform in (tp.grad, torch.func.grad):
        assert all(torch.equal(leaf, torch.zeros_like(leaf)) for leaf in tree.leaves(transform(tree.norm)(zeros)))
    part = tp.grad(tree.norm)({"a": torch.zeros(2), "b": torch.tensor(-2.0)})
    assert torch.equal(part["a"], torch.zeros(2)) and part["b"] == -1
    assert torch.equal(tp.vmap(tp.grad(lambda x: tree.norm([x])))(torch.zeros(3, 2)), torch.zeros(3, 2))


def test_cast_changes_neither_dtype():
    number = torch.tensor(0.5, dtype=F64)
    assert tree.cast(number, torch.ones(1)).dtype == F32
    assert tree.cast(number, torch.ones(1, dtype=torch.complex64)).dtype == F32
    assert tree.cast(number * 1j, torch.ones(1, dtype=torch.complex64)).dtype == torch.complex64
    assert tree.cast(number, torch.ones(1, dtype=I64)) is number and tree.cast(0.5, torch.ones(1)) == 0.5
