"""A result may hold an object that is no tree, but not one that holds a traced tensor."""

from functools import partial
from types import SimpleNamespace

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
}
CALLS = {
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


@pytest.mark.parametrize("call", [name for name in CALLS if name != "jit"])
def test_an_object_with_other_tensors_is_handed_on(call):
    CALLS[call](
        lambda x: (
            ((x * x).sum(), "name", 3)
            if call in {"remat", "make_graph", "eval_shape"}
            else ((x * x).sum(), SimpleNamespace(a=X))
        )
    )


def test_aux_with_an_object_comes_back_as_it_is():
    held = SimpleNamespace(weight=torch.nn.Parameter(X))
    assert tp.grad(lambda x: ((x * x).sum(), held), has_aux=True)(X)[1] is held
    assert tp.vjp(lambda x: ((x * x).sum(), held), X, has_aux=True)[2] is held
