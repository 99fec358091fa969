"""Errors for arguments of another kind: modules, optimizers that are not built, states of other parameters."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from torchpure import tree
from torchpure._types import Params
from torchpure.errors import StructureError

FAILURES = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def describe_no_params(params: Params) -> str | None:
    """Describe the first leaf that is an array, a module, an iterator, an optimizer or a function, or return None."""
    kinds = (_name_kind(leaf) for leaf in tree.leaves(params) if not isinstance(leaf, Tensor))
    return next((kind for kind in kinds if kind), None)


def _name_kind(value: Any) -> str | None:
    """Describe a value that is often passed for parameters, with the way out; None for other values."""
    if isinstance(value, nn.Module):
        return f"the module {type(value).__name__}: pass tp.functional(module).params"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of {value.dtype}: convert it with torch.as_tensor"
    if isinstance(value, Iterator):
        return f"a {type(value).__name__}: pass tp.functional(module).params instead of module.parameters()"
    if isinstance(value, torch.optim.Optimizer):
        return f"an optimizer of torch.optim, {type(value).__name__}"
    if callable(value) and not isinstance(value, Tensor):
        return f"a function, {getattr(value, '__name__', type(value).__name__)}"
    return None


def describe_optimizer(value: Any) -> str:
    """Describe a value that is passed for an optimizer, with the way out."""
    theirs = value if isinstance(value, type) else type(value)
    if issubclass(theirs, torch.optim.Optimizer):
        name = theirs.__name__
        return f"torch.optim.{name}: use the optimizer of tp.optim, or tp.optim.lift(torch.optim.{name}, lr=…)"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__}: pass each optimizer as an argument, as in tp.optim.chain(a, b)"
    if callable(value) and not isinstance(value, nn.Module):
        name = getattr(value, "__name__", type(value).__name__)
        return f"the function {name}: call it first, as in {name}(learning_rate)"
    if isinstance(value, nn.Module):
        return f"the module {type(value).__name__}"
    return f"{value!r:.60}"


def explain_failure(caller: str, init: Callable[[Params], Any], grads: Any, state: Any, params: Any) -> None:
    """Raise an error that names the wrong argument of an update; return if the arguments are as `init` makes them.

    Raises:
        TypeError: the gradients or the parameters are a module or another wrong kind.
        StructureError: the state does not belong to the parameters or to the optimizer.
    """
    for part in (grads, params):
        if kind := describe_no_params(part):
            raise TypeError(f"{caller}: wanted a tree of tensors, got {kind}") from None
    if mistake := _wrong_gradient(grads, params):
        raise StructureError(f"{caller}: {mistake}") from None
    try:
        wanted = init(grads if params is None else params)
    except FAILURES:
        return
    difference = _difference(wanted, state, ())
    if difference:
        raise StructureError(
            f"{caller}: the state does not fit: at `{difference}. Pass (grads, state, params), with the state that "
            "init(params) of this optimizer made for these parameters"
        ) from None


def _wrong_gradient(grads: Any, params: Any) -> str | None:
    """Describe the first gradient of a layout or a dtype that does not fit its parameter; None if all fit."""
    if params is None or tree.structure(grads) != tree.structure(params):
        return None
    for number, (gradient, leaf) in enumerate(zip(tree.leaves(grads), tree.leaves(params), strict=True)):
        if not isinstance(gradient, Tensor) or not isinstance(leaf, Tensor):
            continue
        if gradient.layout is not torch.strided or gradient.dtype != leaf.dtype or not is_differentiable(leaf):
            sparse = gradient.layout is not torch.strided
            got = f"sparse ({gradient.layout})" if sparse else tree.describe(gradient)
            way_out = "make it dense with .to_dense()" if sparse else f"convert it with .to({leaf.dtype})"
            if not is_differentiable(leaf):
                way_out = "give None for a parameter that is not floating point or complex"
            path = tree.paths(params)[number]
            return f"the gradient at `{path}` is {got}, the parameter {tree.describe(leaf)}: {way_out}"
    return None


def is_differentiable(leaf: Any) -> bool:
    """Return whether a leaf can have a gradient: a floating-point or complex tensor."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def _difference(wanted: Any, got: Any, path: tuple[Any, ...]) -> str | None:
    """Describe the first difference of two states. A part that `init` leaves out may be anything."""
    if wanted is None:
        return None
    inner, found = tree.children(wanted), tree.children(got)
    if type(wanted) is not type(got) and not (isinstance(wanted, Tensor) and isinstance(got, Tensor)):
        return f"{_join(path)}`: wanted {_describe(wanted)}, got {_describe(got)}"
    if inner is None or found is None:
        same = not isinstance(wanted, Tensor) or wanted.shape == got.shape
        return None if same else f"{_join(path)}`: wanted {_describe(wanted)}, got {_describe(got)}"
    if inner.keys() != found.keys():
        return f"{_join(path)}`: wanted {list(inner)}, got {list(found)}"
    below = (_difference(part, found[name], (*path, name)) for name, part in inner.items())
    return next((difference for difference in below if difference), None)


def _join(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path)) or "."


def _describe(part: Any) -> str:
    return type(part).__name__ if isinstance(part, tuple) and hasattr(part, "_fields") else tree.describe(part)


def refuse_state(caller: str, wanted: type, got: Any) -> NoReturn:
    """Raise the error for a state of another optimizer."""
    raise StructureError(
        f"{caller}: wanted a state of kind {wanted.__name__}, got {_describe(got)}. Pass (grads, state, params), with "
        "the state that init(params) of this optimizer made"
    )
