"""Gradients of scalar functions.

The outermost gradient runs on plain autograd, which is faster and knows checkpointing. A gradient inside a transform,
or inside another gradient, runs on torch.func. The result does not depend on which one ran:

- Plain autograd would see zeros inside a level of torch.func, and detached values inside another gradient of ours. Both
  cases are known before the call, from torch's stack of levels and from `OUTERMOST`.
- If a variable itself requires grad, or is dual, the result must be differentiable. torch.func computes it.
- If the value depends on a captured tensor that requires grad, the result must be differentiable too. A walk over the
  graph finds such leaves, and the backward pass is recorded.
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
from torchpure._types import Grads, P, T, Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable, hint_keywords
from torchpure.transforms.engine import (
    AUTOGRAD,
    OUTERMOST,
    backward,
    clear_autocast_cache,
    depends_on,
    describe_function,
    expose_all,
    graph_leaves,
    refuse_nested,
    run_grad,
)
from torchpure.transforms.overrides import overridden, paused_overrides, run_transform
from torchpure.transforms.purity import NoWatch, Watch, refuse_hidden_tensors, watched

from ._variables import Argnums, Variables

_ENABLED = nullcontext()  # grad mode is on already
_requires_grad = attrgetter("requires_grad")
_grad_of = attrgetter("grad")


@hint_keywords()
def grad(fn: Callable[P, Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[P, Any]:
    """Return the function that computes the gradient of a scalar function.

    The gradient has the structure of the chosen argument; for several `argnums` it is a tuple. Leaves that are not
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


@hint_keywords()
def value_and_grad(fn: Callable[P, T], argnums: Argnums = 0, has_aux: bool = False) -> Callable[P, tuple[T, Grads]]:
    """Return the function that computes a scalar function and its gradient: (value, gradient).

    With `has_aux` the result is ((value, aux), gradient). All else is as in `grad`.

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
    caller: str, fn: Callable[..., Any], argnums: Argnums, has_aux: bool, args: tuple[Tree, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Tree, Tree]:
    with paused_overrides():
        variables = Variables(caller, fn, argnums, args)
        watch = watched(caller, fn, args, kwargs)
        run = _by_autograd if _outermost(variables.leaves) else _by_torch_func
        try:
            value, aux, grads = run(caller, fn, has_aux, variables, kwargs, watch)
        except RuntimeError as error:
            if run is _by_torch_func or "Inference tensors cannot be saved" not in str(error.__cause__ or error):
                raise
            # fn uses a tensor made in inference mode: autograd cannot save it, but can save the wrapper of torch.func
            value, aux, grads = _by_torch_func(caller, fn, has_aux, variables, kwargs, watch)
        return value, aux, variables.result(grads)


def _outermost(leaves: list[Tensor]) -> bool:
    """Return whether plain autograd gives the same result as torch.func."""
    return (
        tree.unwatched()
        and OUTERMOST.variables is None
        and not torch.is_inference_mode_enabled()
        and not any(map(_requires_grad, leaves))
        and not any(map(Tensor.is_inference, leaves))
    )


def _by_autograd(
    caller: str,
    fn: Callable[..., Any],
    has_aux: bool,
    variables: Variables,
    kwargs: dict[str, Any],
    watch: Watch | NoWatch,
) -> tuple[Tensor, Tree, list[Tensor]]:
    recording = torch.is_grad_enabled()
    own = [leaf.detach().requires_grad_() for leaf in variables.leaves]
    OUTERMOST.variables = own
    try:
        with _ENABLED if recording else torch.enable_grad():
            output = run_transform(caller, fn, overridden(fn), *variables.arguments(own), **kwargs)
            if any(leaf is not None for leaf in map(_grad_of, own)):
                raise TransformError(f"{caller}: {describe_function(fn)} {AUTOGRAD}")
            value, aux = _value_and_aux(caller, fn, has_aux, output)
            watch.check(partial(depends_on, own))
            if aux is not None:
                refuse_hidden_tensors(caller, fn, tree.leaves(aux), partial(depends_on, own))
                aux = _detached(aux, own, recording)
            if not value.requires_grad:
                return value, aux, [torch.zeros_like(leaf) for leaf in variables.leaves]
            captured = (recording or value.grad_fn is None) and _depends_on_captured(value, own)
            grads = run_transform(caller, fn, backward, value, own, captured, captured or _keeps_graph(aux))
    finally:
        OUTERMOST.variables = None
        clear_autocast_cache()
    if captured:
        return value, aux, _detached(grads, own, recording)
    return value.detach(), aux, grads


def _depends_on_captured(output: Tensor, own: list[Tensor]) -> bool:
    """Return whether an output depends on a leaf of the graph that is none of our variables."""
    if output.grad_fn is None:
        return all(output is not leaf for leaf in own)
    ours = set(map(id, own))
    return any(id(leaf) not in ours for leaf in graph_leaves(output.grad_fn))


def _detached(values: Tree, own: list[Tensor], recording: bool) -> Tree:
    """Detach each tensor that depends on our variables alone; a captured leaf may stay attached."""

    def detach(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.requires_grad:
            return leaf
        keeps = recording or leaf.grad_fn is None  # a captured leaf comes back as itself, in any grad mode
        return leaf if keeps and _depends_on_captured(leaf, own) else leaf.detach()

    return tree.map(detach, values)


def _keeps_graph(aux: Tree) -> bool:
    """Return whether aux holds a part of the graph, for a captured tensor."""
    return aux is not None and any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree.leaves(aux))


def _by_torch_func(
    caller: str,
    fn: Callable[..., Any],
    has_aux: bool,
    variables: Variables,
    kwargs: dict[str, Any],
    watch: Watch | NoWatch,
) -> tuple[Tensor, Tree, list[Tensor]]:
    refuse_nested(caller, fn, variables.leaves, jagged=True)
    run_fn = overridden(fn)
    static: list[Any] = []  # aux without its tensors: only tensors pass through a level

    def flat(*values: Tensor) -> tuple[Tensor, list[Tensor]]:
        value, aux = _value_and_aux(caller, fn, has_aux, run_fn(*variables.arguments(values), **kwargs))
        leaves, structure = tree.flatten(aux)
        static[:] = [expose_all(leaves), structure]
        return expose_all([value])[0], [leaf for leaf in static[0] if isinstance(leaf, Tensor)]

    run = _under_compile if is_dynamo_compiling() else run_grad
    value, tensors, grads = run_transform(caller, fn, run, flat, variables.leaves)
    watch.check()
    refuse_hidden_tensors(caller, fn, static[0])
    remaining = iter(tensors)
    aux = [next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in static[0]]
    return value, tree.unflatten(static[1], aux), grads


def _under_compile(fn: Callable[..., Any], leaves: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    argnums = tuple(range(len(leaves)))
    grads, (value, others) = torch.func.grad_and_value(fn, argnums=argnums, has_aux=True)(*leaves)
    return value, others, list(grads)


def _value_and_aux(caller: str, fn: Callable[..., Any], has_aux: bool, output: Any) -> tuple[Tensor, Tree]:
    if has_aux and not (isinstance(output, tuple) and len(output) == 2):
        raise TransformError(
            f"{caller}: with has_aux, {describe_function(fn)} must return (value, aux), got {tree.describe(output)}. "
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
        f"{caller}: {describe_function(fn)} must return a real tensor of shape (), got {tree.describe(value)}. {hint}"
    )
