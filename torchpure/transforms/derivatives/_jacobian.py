"""Jacobians and Hessians."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure._types import P, Tree
from torchpure.errors import TransformError
from torchpure.transforms.batching import check_chunk
from torchpure.transforms.calls import check_callable, hint_keywords
from torchpure.transforms.engine import (
    batched_like,
    describe_function,
    in_dual_level,
    like_primals,
    materialized,
    refuse_nested,
    torch_jvp,
    without_zerotensors,
)
from torchpure.transforms.overrides import overridden, paused_overrides, run_transform
from torchpure.transforms.purity import watched

from ._outputs import Outputs
from ._variables import Argnums, Variables

_hint_keywords = hint_keywords(randomness="leave it out, and draw with tp.random, from a key that is an argument of fn")


@_hint_keywords
def jacrev(
    fn: Callable[P, Any], argnums: Argnums = 0, has_aux: bool = False, *, chunk_size: int | None = None
) -> Callable[P, Any]:
    """Return the function that computes the Jacobian of `fn`, from one backward pass for each output entry.

    The result has the structure of the value. Each leaf is replaced by the structure of the chosen arguments, with
    tensors of shape (*output, *input). With `has_aux` it is (Jacobian, aux). All rows are computed at once, or at most
    `chunk_size`, which bounds the memory.

    Law: `jacrev(f) == jacfwd(f)`, whatever the chunks.

    Raises:
        TransformError: there is nothing to differentiate, `fn` does not return tensors, or one is complex.

    >>> jacrev(lambda x: x**2)(torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    check_callable("jacrev", fn)
    check_chunk("jacrev", chunk_size)
    return _jacobian("jacrev", partial(_jacrev, chunk_size), fn, argnums, has_aux, forward=False)


@_hint_keywords
def jacfwd(
    fn: Callable[P, Any], argnums: Argnums = 0, has_aux: bool = False, *, chunk_size: int | None = None
) -> Callable[P, Any]:
    """Return the function that computes the Jacobian of `fn`, from one forward derivative for each input entry.

    All else is as in `jacrev`.

    Raises:
        TransformError: there is nothing to differentiate, `fn` does not return tensors, or one is complex.

    >>> jacfwd(lambda x: x**2)(torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    check_callable("jacfwd", fn)
    check_chunk("jacfwd", chunk_size)
    return _jacobian("jacfwd", partial(_jacfwd, chunk_size), fn, argnums, has_aux, forward=True)


@_hint_keywords
def hessian(
    fn: Callable[P, Any], argnums: Argnums = 0, has_aux: bool = False, *, chunk_size: int | None = None
) -> Callable[P, Any]:
    """Return the function that computes the Hessian, `jacfwd(jacrev(fn))`, at most `chunk_size` columns at once.

    Raises:
        TransformError: as for `jacrev`.

    >>> hessian(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    check_callable("hessian", fn)
    check_chunk("hessian", chunk_size)
    inner = _jacobian("hessian", torch.func.jacrev, fn, argnums, has_aux, forward=False)
    return _jacobian("hessian", partial(_jacfwd, chunk_size), inner, argnums, has_aux, forward=True)


def _jacrev(
    chunk_size: int | None, fn: Callable[..., Any], argnums: tuple[int, ...], has_aux: bool
) -> Callable[..., Any]:
    run = torch.func.jacrev(fn, argnums=argnums, has_aux=has_aux, chunk_size=chunk_size)
    if chunk_size != 1:
        return run

    def one_by_one(*leaves: Tensor) -> Any:
        try:
            return run(*leaves)
        except AssertionError as error:  # torch fails at an output without entries
            if "expected t.size(0) to be 1, got 0" not in str(error):
                raise
            return torch.func.jacrev(fn, argnums=argnums, has_aux=has_aux)(*leaves)

    return one_by_one


def _jacfwd(
    chunk_size: int | None, fn: Callable[..., Any], argnums: tuple[int, ...], has_aux: bool
) -> Callable[..., Any]:
    every = torch.func.jacfwd(fn, argnums=argnums, has_aux=has_aux)

    def run(*leaves: Tensor) -> Any:
        if not any(map(Tensor.numel, leaves)):
            return _empty_jacfwd(fn, *leaves)
        if chunk_size is None and is_dynamo_compiling():
            return every(*leaves)
        return _chunked_jacfwd(chunk_size or sum(map(Tensor.numel, leaves)), fn, *leaves)

    return lambda *leaves: in_dual_level(run, leaves)(*leaves)


def _chunked_jacfwd(chunk_size: int, fn: Callable[..., Any], *leaves: Tensor) -> Any:
    """Push the unit vectors of all inputs forward in chunks; return (rows, aux), as torch.func.jacfwd does."""
    sizes = [leaf.numel() for leaf in leaves]
    aux: list[Any] = []

    def push(*tangents: Tensor) -> tuple[Tensor, ...]:
        values, moved, others = torch_jvp(fn, leaves, tuple(batched_like(leaves, tangents)), has_aux=True)
        aux[:] = [others]
        return tuple(like_primals(moved, values))

    parts = [
        torch.func.vmap(push)(*_unit_vectors(leaves, sizes, start, min(start + chunk_size, sum(sizes))))
        for start in range(0, sum(sizes), chunk_size)
    ]
    stacked = [
        torch.cat([without_zerotensors(part) for part in column]).movedim(0, -1) for column in zip(*parts, strict=True)
    ]
    columns = [column.split(sizes, -1) for column in stacked]
    rows = tuple(
        tuple(part.reshape((*part.shape[:-1], *leaf.shape)) for part, leaf in zip(column, leaves, strict=True))
        for column in columns
    )
    return rows, aux[0]


def _empty_jacfwd(fn: Callable[..., Any], *leaves: Tensor) -> Any:
    """Return the Jacobian for inputs without entries: there is no unit vector to map over."""
    _, moved, aux = torch_jvp(fn, leaves, tuple(map(torch.zeros_like, leaves)), has_aux=True)
    return tuple(tuple(out.new_zeros((*out.shape, *leaf.shape)) for leaf in leaves) for out in moved), aux


def _unit_vectors(leaves: Sequence[Tensor], sizes: list[int], start: int, stop: int) -> list[Tensor]:
    vectors, offset = [], 0
    for leaf, size in zip(leaves, sizes, strict=True):
        positions = torch.arange(start - offset, stop - offset, device=leaf.device)
        flat = positions[:, None] == torch.arange(size, device=leaf.device)
        vectors.append(flat.to(leaf.dtype).reshape((stop - start, *leaf.shape)))
        offset += size
    return vectors


def _jacobian(
    caller: str,
    transform: Callable[..., Any],
    fn: Callable[..., Any],
    argnums: Argnums,
    has_aux: bool,
    forward: bool,
) -> Callable[..., Any]:
    @wraps(fn, updated=())
    def jacobian(*args: Tree, **kwargs: Any) -> Any:
        variables = Variables(caller, fn, argnums, args)
        _check_real(caller, fn, variables.leaves, variables.paths)
        refuse_nested(caller, fn, variables.leaves)
        watch = watched(caller, fn, args, kwargs)
        outputs, run_fn = Outputs(caller, fn, has_aux), overridden(fn)

        def flat(*values: Tensor) -> Any:
            parts, others = outputs.split(run_fn(*variables.arguments(values), **kwargs))
            _check_real(caller, fn, parts, lambda: [f"the value {path}" for path in outputs.paths()])
            return parts, others[1]

        every = tuple(range(len(variables.leaves)))
        leaves = map(materialized, variables.leaves) if forward else variables.leaves
        with paused_overrides():
            rows, aux = run_transform(caller, fn, transform(flat, argnums=every, has_aux=True), *leaves)
        watch.check()
        outputs.refuse_hidden_tensors()
        result = outputs.derivative(variables.result(row) for row in rows)
        return (result, outputs.auxiliary(aux)) if has_aux else result

    return jacobian


def _check_real(caller: str, fn: Callable[..., Any], leaves: Sequence[Tensor], paths: Callable[[], list[str]]) -> None:
    number = next((number for number, leaf in enumerate(leaves) if leaf.is_complex()), None)
    if number is not None:
        raise TransformError(
            f"{caller}: {describe_function(fn)}: {paths()[number]} is complex, and a complex derivative is not one "
            "number: use jvp or vjp, or torch.view_as_real"
        )
