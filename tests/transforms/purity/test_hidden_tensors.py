"""A result may hold an object that is no tree, but not one that holds a traced tensor."""

from functools import partial
from itertools import cycle
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from torch.distributions import Normal

import torchpure as tp
from torchpure.errors import TransformError

X = torch.ones(3)


class Slotted:
    __slots__ = ("hidden",)

    def __init__(self, hidden):
        self.hidden = hidden


OBJECTS = {
    "attribute": (lambda h: SimpleNamespace(a=1, hidden=h), "an object of class SimpleNamespace, .* `hidden` of it"),
    "nested": (lambda h: SimpleNamespace(a=[{"b": h}]), ".* `a.0.b` of it"),
    "slot": (Slotted, "an object of class Slotted, .* `hidden` of it"),
    "distribution": (lambda h: Normal(h, 1.0, validate_args=False), "an object of class Normal, .* `loc` of it"),
    "closure": (lambda h: lambda: h, "a function, .* `h` of it"),
    "partial": (lambda h: partial(torch.add, h), "an object of class partial, .* `args.0` of it"),
    "set": (lambda h: {h}, "an object of class set"),
    "generator": (lambda h: (h * k for k in range(2)), "an object of class generator, .*: return a tuple or a dict"),
    "iterator": (lambda h: iter([1, h]), "an object of class list_iterator"),
    "map": (lambda h: map(h.add, [1]), "an object of class map"),
    "zip": (lambda h: zip([1], [h], strict=True), "an object of class zip"),
    "cycle": (lambda h: cycle([h]), "an object of class cycle"),
    "values": (lambda h: {"a": h}.values(), "an object of class dict_values, .*: return a tuple or a dict"),
    "keys": (lambda h: {h: 1}.keys(), "an object of class dict_keys"),
    "proxy": (lambda h: MappingProxyType({"a": h}), "an object of class mappingproxy"),
    "slice": (lambda h: slice(h), "an object of class slice, which is no tree, and what it holds is"),
}


def with_rule(kind, f):
    fn = kind(f)
    if kind is tp.custom_vjp:
        fn.defvjp(lambda x: (f(x), x), lambda x, cotangent: (2 * x * cotangent[0],))
    else:
        fn.defjvp(lambda primals, tangents: (f(*primals), f(*tangents)))
    return tp.grad(lambda x: fn(x)[0])(X)


CALLS = {
    "custom_jvp": lambda f: with_rule(tp.custom_jvp, f),
    "custom_vjp": lambda f: with_rule(tp.custom_vjp, f),
    "vmap": lambda f: tp.vmap(f, out_dims=(0, None))(X[None]),
    "grad": lambda f: tp.grad(f, has_aux=True)(X),
    "value_and_grad": lambda f: tp.vmap(lambda x: tp.value_and_grad(f, has_aux=True)(x)[1])(X[None]),
    "vjp": lambda f: tp.vjp(f, X, has_aux=True),
    "jvp": lambda f: tp.jvp(f, (X,), (X,), has_aux=True),
    "jacfwd": lambda f: tp.jacfwd(f, has_aux=True)(X),
    "jacrev": lambda f: tp.jacrev(f, has_aux=True)(X),
    "hessian": lambda f: tp.hessian(f, has_aux=True)(X),
    "make_graph": lambda f: tp.make_graph(f)(X),
    "eval_shape": lambda f: tp.eval_shape(f, X),
    "jit": lambda f: tp.jit(f)(X),
    "remat": lambda f: tp.vmap(tp.grad(lambda x: tp.remat(f)(x)[0]))(X[None]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_with_a_traced_tensor_is_refused(name, call):
    make, message = OBJECTS[name]
    with pytest.raises(TransformError, match=rf"^{call}: .* returns {message}"):
        CALLS[call](lambda x: ((x * x).sum(), make(x * 2)))


@pytest.mark.parametrize("call", [name for name in CALLS if name not in {"custom_jvp", "jit"}])
def test_an_object_with_other_tensors_is_handed_on(call):
    CALLS[call](
        lambda x: (
            ((x * x).sum(), "name", 3)
            if call in {"custom_jvp", "custom_vjp", "remat", "make_graph", "eval_shape"}
            else ((x * x).sum(), SimpleNamespace(a=X))
        )
    )


def test_aux_with_an_object_comes_back_as_it_is():
    held = SimpleNamespace(weight=torch.nn.Parameter(X))
    assert tp.grad(lambda x: ((x * x).sum(), held), has_aux=True)(X)[1] is held
    assert tp.vjp(lambda x: ((x * x).sum(), held), X, has_aux=True)[2] is held
