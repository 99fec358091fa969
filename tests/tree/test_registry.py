"""Classes that are registered with torch, or here, are trees everywhere, whenever they are registered."""

import dataclasses
from collections import namedtuple

import pytest
import torch
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils import _pytree as pytree
from transformers.utils import ModelOutput

import torchpure as tp
from torchpure import tree
from torchpure.errors import StructureError, TransformError
from torchpure.tree import _backend


@dataclasses.dataclass
class Fields:
    w: object
    b: object = None


class Box:
    """Keeps its label in a list, which has no hash."""

    def __init__(self, items, label):
        self.items, self.label = list(items), label


@dataclasses.dataclass
class Output(ModelOutput):
    logits: object = None
    loss: object = None


class Span:
    def __init__(self, low, high, unit):
        self.low, self.high, self.unit = low, high, unit


class Bag:
    def __init__(self, items):
        self.items = tuple(items)


@dataclasses.dataclass(frozen=True)
class Setting:
    name: str


pytree.register_dataclass(Fields)
pytree.register_pytree_node(Box, lambda box: (box.items, [box.label]), lambda items, kept: Box(items, kept[0]))
pytree.register_constant(Setting)
tree.register(
    Span,
    lambda span: ((span.low, span.high), span.unit),
    lambda unit, ends: Span(*ends, unit),
    names=lambda span: ("low", "high"),
)
tree.register(Bag, lambda bag: (bag.items, None), lambda _, items: Bag(items))

X = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
MAKERS = {  # a container of x and 3 x, and the paths to them
    "dataclass": (lambda x: Fields(x, {"k": 3 * x}), ["w", "b.k"]),
    "dataclass with None": (lambda x: [Fields(x), Fields(None, 3 * x)], ["0.w", "1.b"]),
    "with a list beside": (lambda x: Box([x, 3 * x], "a"), ["0", "1"]),
    "model output": (lambda x: Output(logits=x, loss=3 * x), ["logits", "loss"]),
    "immutable list": (lambda x: immutable_list([x, (3 * x,)]), ["0", "1.0"]),
    "immutable dict": (lambda x: immutable_dict(b=x, a=3 * x), ["b", "a"]),
    "registered here": (lambda x: Span(x, 3 * x, "m"), ["low", "high"]),
    "registered here without names": (lambda x: Bag([x, None, 3 * x]), ["0", "2"]),
    "a constant inside": (lambda x: (Setting("fast"), x, 3 * x), ["1", "2"]),
}


def squares(value):
    return sum((leaf**2).sum() for leaf in tree.leaves(value))


def double(value):
    return tree.map(lambda leaf: 2 * leaf, value)


def along(value):
    """Return the derivative of squares by jvp along the value itself, as a factor of the value."""
    return tp.tree.scale(value, tp.jvp(squares, (value,), (value,))[1] / squares(value))


OPERATIONS = {  # each doubles the leaves of a container
    "map": double,
    "add": lambda value: tree.add(value, value),
    "ravel": lambda value: tree.ravel(value)[1](2 * tree.ravel(value)[0]),
    "grad": tp.grad(squares),
    "vjp": lambda value: tp.vjp(squares, value)[1](torch.ones((), dtype=X.dtype))[0],
    "jvp": along,
    "jacrev": tp.jacrev(squares),
    "jacfwd": tp.jacfwd(squares),
    "vmap": tp.vmap(double),
    "vmap of grad": tp.vmap(tp.grad(squares)),
    "program": tp.jit(double),
    "remat": tp.grad(tp.remat(squares)),
    "pure": tp.pure(double),
    "cond": lambda value: tp.cond(torch.tensor(True), double, lambda value: value, value),
    "fori_loop": lambda value: tp.fori_loop(0, 1, lambda i, value: double(value), value),
    "scan": lambda value: tp.scan(lambda carry, _: (double(carry), carry), value, length=1)[0],
    "ys of a scan": lambda value: tp.vmap(lambda y: y, in_dims=0)(tp.scan(lambda c, x: (c, double(x)), 0.0, value)[1]),
    "sgd": lambda value: tp.optim.sgd(1.0).step(tp.tree.scale(value, -1.0), tp.optim.sgd(1.0).init(value), value)[0],
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_registered_container_is_a_tree(operation, name):
    make, paths = MAKERS[name]
    value = make(X)
    assert tree.paths(value) == paths
    result = OPERATIONS[operation](value)
    assert tree.structure(result) == tree.structure(value) and hash(tree.structure(result)) is not None
    assert type(result) is type(value)
    for leaf, wanted in zip(tree.leaves(result), (2 * X, 6 * X), strict=True):
        torch.testing.assert_close(leaf, wanted)


@pytest.mark.parametrize("name", MAKERS)
def test_results_of_a_mapped_function(name):
    make, _ = MAKERS[name]
    result = tp.vmap(make)(X)
    assert type(result) is type(make(X)) and all(map(torch.equal, tree.leaves(result), (X, 3 * X)))


@pytest.mark.parametrize("name", MAKERS)
def test_a_traced_container_is_the_same_tree(name, monkeypatch):
    value = MAKERS[name][0](1)
    monkeypatch.setattr(_backend, "is_dynamo_compiling", lambda: True)
    leaves, structure = tree.flatten(value)
    assert leaves == [1, 3] and type(tree.unflatten(structure, leaves)) is type(value)


def test_dims_can_have_the_form_of_the_container():
    result = tp.vmap(lambda p: p.w * p.b, in_dims=(Fields(0, None),))(Fields(X, X))
    torch.testing.assert_close(result, torch.outer(X, X))


@pytest.mark.parametrize("make", [Fields, Output, lambda one, two=None: {"w": one, "b": two}])
def test_a_field_can_be_none_where_the_other_tree_has_a_leaf(make):
    params = make(X, 3)
    gradient = tp.grad(lambda p: (tree.leaves(p)[0] ** 2).sum())(params)
    assert gradient.b is None if make is Fields else len(tree.leaves(gradient)) == 1
    optimizer = tp.optim.sgd(0.5)
    moved, _ = optimizer.step(gradient, optimizer.init(params), params)
    torch.testing.assert_close(tree.leaves(moved), [0 * X, 3])
    tangent = tp.jvp(lambda p: tree.leaves(p)[0] * tree.leaves(p)[1], (make(X, X),), (make(X, None),))[1]
    torch.testing.assert_close(tangent, X**2)


def test_a_class_is_a_leaf_until_it_is_registered_and_a_leaf_again_afterwards():
    class Late:
        def __init__(self, w):
            self.w = w

    late = Late(X)
    assert tree.leaves([late]) == [late] and tree.children(late) is None
    with pytest.raises(TransformError, match="nothing to differentiate"):
        tp.grad(lambda p: p.w.sum())(late)
    pytree.register_pytree_node(Late, lambda late: ([late.w], None), lambda parts, _: Late(*parts))
    assert tree.leaves([late]) == [X] and tree.children(late) == {0: X}
    torch.testing.assert_close(tp.grad(lambda p: (p.w**2).sum())(late).w, 2 * X)
    pytree._deregister_pytree_node(Late)
    assert tree.leaves([late]) == [late]


def test_a_class_that_is_registered_again_uses_the_newer_functions():
    class Twice:
        def __init__(self, w):
            self.w = w

    pytree._private_register_pytree_node(Twice, lambda one: ([one.w], None), lambda parts, _: Twice(*parts))
    assert tree.leaves(Twice((1, 2))) == [1, 2]
    with pytest.warns(UserWarning, match="already registered"):
        pytree._private_register_pytree_node(Twice, lambda one: ([0], None), lambda parts, _: Twice(*parts))
    assert tree.leaves(Twice((1, 2))) == [0]


def test_subclasses_and_shapes_are_leaves():
    class Sub(Span):
        pass

    sub = Sub(1, 2, "m")
    assert tree.leaves([sub, X.shape]) == [sub, X.shape]


def test_keys_of_registered_dicts_match_in_any_order():
    one, other = immutable_dict(a=1, b=(2,)), immutable_dict(b=(20,), a=10)
    assert tree.map(lambda a, b: a + b, one, other) == {"a": 11, "b": (22,)}
    assert tree.map(lambda a, b: a + b, {"a": 1, "b": (2,)}, other) == {"a": 11, "b": (22,)}
    assert tree.map(lambda a, b: a + b, Output(logits=1, loss=2), {"loss": 20, "logits": 10}) == Output(11, 22)
    assert tree.ordered(tree.structure(one), other, "here") == [10, 20]
    tree.check_same(one, other)


DIFFERENT = {
    "kept": (Box([1], "a"), Box([1], "b"), r"at `.`: wanted Box with \['a'\], got \['b'\]"),
    "unit": ([Span(1, 2, "m")], [Span(1, 2, "s")], "at `0`: wanted Span with 'm', got 's'"),
    "constant": ([Setting("a")], [Setting("b")], r"at `0`: wanted Setting with .*'a'.*, got .*'b'"),
    "number of children": (Bag([1]), Bag([1, 2]), "at `.`: wanted 1 items, got 2"),
    "field that is None": (Fields(1), Fields(1, 2), "at `b`: wanted None, got int 2"),
    "entry that is None": (Output(logits=1), Output(logits=1, loss=2), "at `loss`: wanted None, got int 2"),
    "below": (Fields(1, {"k": 2}), Fields(1, {"j": 2}), "at `b`: wanted keys 'k', got 'j'"),
    "class": (Fields(1, 2), Span(1, 2, "m"), "at `.`: wanted Fields of 2, got Span of 2"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_named(name):
    one, other, message = DIFFERENT[name]
    for call in (lambda: tree.map(lambda a, b: a, one, other), lambda: tree.check_same(one, other)):
        with pytest.raises(StructureError, match=message):
            call()
    assert tree.structure(one) != tree.structure(other)


def test_kept_tensors_cannot_be_compared():
    one, same, other = Box([1], X), Box([1], X), Box([1], X + 1)
    assert tree.structure(one) == tree.structure(same)
    with pytest.raises(StructureError, match="two Box nodes cannot be compared.*Make these tensors children"):
        _ = tree.structure(one) == tree.structure(other)


Pair = namedtuple("Pair", "a b")
REFUSED = {
    "no class": (Span(1, 2, "m"), TypeError, "tree.register: wanted a class, got <"),
    "tensor": (torch.nn.Parameter, ValueError, "tree.register: Parameter is always a leaf"),
    "number": (float, ValueError, "tree.register: float is always a leaf"),
    "built in": (dict, ValueError, "tree.register: dict is a tree already"),
    "named tuple": (Pair, ValueError, "tree.register: Pair is a tree already"),
    "result of torch": (torch.return_types.max, ValueError, "tree.register: max is a tree already"),
    "registered with torch": (Fields, ValueError, "tree.register: Fields is a tree already"),
    "None": (type(None), ValueError, "tree.register: NoneType is a tree already"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_register_refuses(name):
    cls, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        tree.register(cls, lambda node: ([], None), lambda rest, children: None)


@pytest.mark.parametrize("name", ["flatten", "unflatten"])
def test_register_needs_two_functions(name):
    functions = {"flatten": lambda node: ([], None), "unflatten": lambda rest, children: None} | {name: None}
    with pytest.raises(TypeError, match=f"tree.register: {name} must be a function, got None"):
        tree.register(type("New", (), {}), **functions)


def test_register_dataclass_keeps_a_registration_of_torch():
    assert tree.register_dataclass(Fields) is Fields
    assert tree.leaves(Fields(None, 1)) == [1]


def test_what_is_registered_here_is_a_tree_for_torch_func():
    gradient = torch.func.grad(lambda span: (span.low * span.high).sum())(Span(X, 3 * X, "m"))
    assert torch.equal(gradient.low, 3 * X) and gradient.unit == "m"
