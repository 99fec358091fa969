"""Gradients of scalar functions.

The outermost gradient runs on plain autograd, which is faster and knows checkpointing; one inside a transform, or
inside another gradient, runs on torch.func. Nobody can tell from the result which one ran:

- Inside a torch.func level plain autograd would see zeros, inside another gradient of ours detached values. Both are
  noticed before the call, by torch's stack of transforms and by a count of ours, one a thread.
- A variable that itself requires grad, or is dual, wants a differentiable result: torch.func gives it.
- So does a captured tensor that requires grad, which only the graph tells: a walk over it finds leaves that are not
  ours, and then the backward pass is itself recorded.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable
from torchpure.transforms.engine import (
    AUTOGRAD,
    LEVEL,
    all_seen,
    backward,
    describe_function,
    differentiated,
    forget_casts,
    leaves_of_graph,
    reaches,
)
from torchpure.transforms.overrides import explained
from torchpure.transforms.purity import Watch

from ._variables import Argnums, Variables

_RECORDING = nullcontext()  # it is already on
_requires_grad = attrgetter("requires_grad")
_written = attrgetter("grad")


def grad(fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """Return the function that computes the gradient of a scalar function.

    The result is shaped like the chosen argument, or is a tuple of such for several `argnums`; leaves that are not
    floating point or complex tensors have gradient None. With `has_aux`, `fn` returns (value, aux) and the result is
    (gradient, aux).

    Raises:
        TransformError: `fn` does not return a real tensor of shape (), or there is nothing to differentiate.

    >>> grad(lambda p, x: p["w"] * x**2, argnums=(0, 1))({"w": torch.tensor(3.0), "name": "a"}, torch.tensor(2.0))
    ({'w': tensor(4.), 'name': None}, tensor(12.))
    """
    check_callable("grad", fn)

    @wraps(fn, updated=())
    def gradient(*args: Tree, **kwargs: Any) -> Any:
        _, aux, grads = _differentiate("grad", fn, argnums, has_aux, args, kwargs)
        return (grads, aux) if has_aux else grads

    return gradient


def value_and_grad(fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """Return the function that computes a scalar function and its gradient: (value, gradient).

    As `grad` otherwise; with `has_aux` the result is ((value, aux), gradient).

    Raises:
        TransformError: as for `grad`.

    >>> value_and_grad(lambda x: (x**2).sum())(torch.tensor([1.0, 2.0]))
    (tensor(5.), tensor([2., 4.]))
    """
    check_callable("value_and_grad", fn)

    @wraps(fn, updated=())
    def value_and_gradient(*args: Tree, **kwargs: Any) -> Any:
        value, aux, grads = _differentiate("value_and_grad", fn, argnums, has_aux, args, kwargs)
        return ((value, aux), grads) if has_aux else (value, grads)

    return value_and_gradient


def _differentiate(
    who: str, fn: Callable[..., Any], argnums: Argnums, has_aux: bool, args: tuple[Tree, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Tree, Tree]:
    variables = Variables(who, fn, argnums, args)
    if is_dynamo_compiling():
        value, aux, grads = _by_torch_func(who, fn, has_aux, variables, kwargs)
        return value, aux, variables.result(grads)
    watch = Watch(who, fn, args, kwargs)
    run = _by_autograd if _outermost(variables.leaves) else _by_torch_func
    try:
        value, aux, grads = run(who, fn, has_aux, variables, kwargs, watch)
    except RuntimeError as error:
        if run is _by_torch_func or "Inference tensors cannot be saved" not in str(error):
            raise
        # fn uses a tensor made in inference mode, which only torch.func wraps before it is saved
        value, aux, grads = _by_torch_func(who, fn, has_aux, variables, kwargs, watch)
    return value, aux, variables.result(grads)


def _outermost(leaves: list[Tensor]) -> bool:
    """Tell whether plain autograd gives what torch.func would."""
    return (
        tree.unwatched()
        and LEVEL.own is None
        and not torch.is_inference_mode_enabled()
        and not any(map(_requires_grad, leaves))
        and not any(map(Tensor.is_inference, leaves))
    )


def _by_autograd(
    who: str, fn: Callable[..., Any], has_aux: bool, variables: Variables, kwargs: dict[str, Any], watch: Watch
) -> tuple[Tensor, Tree, list[Tensor]]:
    recording = torch.is_grad_enabled()
    own = [leaf.detach().requires_grad_() for leaf in variables.leaves]
    LEVEL.own = own
    try:
        with _RECORDING if recording else torch.enable_grad():
            output = explained(who, fn, watch.following(fn), *variables.arguments(own), **kwargs)
            if any(leaf is not None for leaf in map(_written, own)):
                raise TransformError(f"{who}: {describe_function(fn)} {AUTOGRAD}")
            value, aux = _checked(who, fn, has_aux, output)
            watch.check(partial(reaches, own))
            aux = aux if aux is None else _settled(aux, own, recording)
            if not value.requires_grad:
                return value, aux, [torch.zeros_like(leaf) for leaf in variables.leaves]
            captured = (recording or value.grad_fn is None) and _captures(value, own)
            grads = explained(who, fn, backward, value, own, captured, captured or _attached(aux))
    finally:
        LEVEL.own = None
        forget_casts()
    if captured:
        return value, aux, _settled(grads, own, recording)
    return value.detach(), aux, grads


def _captures(output: Tensor, own: list[Tensor]) -> bool:
    """Tell whether an output depends on a leaf of the graph that is not one of our own."""
    if output.grad_fn is None:
        return all(output is not leaf for leaf in own)
    ours = set(map(id, own))
    return any(id(leaf) not in ours for leaf in leaves_of_graph(output.grad_fn))


def _settled(values: Tree, own: list[Tensor], recording: bool) -> Tree:
    """Cut each tensor from our own leaves, except where it also depends on a captured one."""

    def settle(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.requires_grad:
            return leaf
        keeps = recording or leaf.grad_fn is None  # a captured leaf comes back as itself, whatever the mode
        return leaf if keeps and _captures(leaf, own) else leaf.detach()

    return tree.map(settle, values)


def _attached(aux: Tree) -> bool:
    """Tell whether aux keeps a part of the graph, for a captured tensor."""
    return aux is not None and any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree.leaves(aux))


def _by_torch_func(
    who: str,
    fn: Callable[..., Any],
    has_aux: bool,
    variables: Variables,
    kwargs: dict[str, Any],
    watch: Watch | None = None,
) -> tuple[Tensor, Tree, list[Tensor]]:
    static: list[Any] = []  # only tensors pass through a level: the rest of aux waits here

    def flat(*values: Tensor) -> tuple[Tensor, list[Tensor]]:
        value, aux = _checked(who, fn, has_aux, fn(*variables.arguments(values), **kwargs))
        leaves, structure = tree.flatten(aux)
        static[:] = [all_seen(leaves), structure]
        return all_seen([value])[0], [leaf for leaf in static[0] if isinstance(leaf, Tensor)]

    run = _traced if is_dynamo_compiling() else differentiated
    with nullcontext() if watch is None else watch.replacing():
        value, tensors, grads = explained(who, fn, run, flat, variables.leaves)
    if watch is not None:
        watch.check()
    remaining = iter(tensors)
    aux = [next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in static[0]]
    return value, tree.unflatten(static[1], aux), grads


def _traced(fn: Callable[..., Any], leaves: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    argnums = tuple(range(len(leaves)))
    grads, (value, others) = torch.func.grad_and_value(fn, argnums=argnums, has_aux=True)(*leaves)
    return value, others, list(grads)


def _checked(who: str, fn: Callable[..., Any], has_aux: bool, output: Any) -> tuple[Tensor, Tree]:
    if has_aux and not (isinstance(output, tuple) and len(output) == 2):
        raise TransformError(
            f"{who}: with has_aux, {describe_function(fn)} must return (value, aux), got {tree.describe(output)}. "
            "Return both, or leave out has_aux"
        )
    value, aux = output if has_aux else (output, None)
    if isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point():
        return value, aux
    if isinstance(value, Tensor) and value.ndim > 0:
        hint = "Reduce it with .sum() or .mean(), or use jacrev"
    else:
        hint = "Return a floating point tensor; for (value, aux) pass has_aux=True"
    raise TransformError(
        f"{who}: {describe_function(fn)} must return a real tensor of shape (), got {tree.describe(value)}. {hint}"
    )
