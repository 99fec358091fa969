"""Trees as vectors: the arithmetic that optimizers are written in.

Every function returns a new tree. Ordinary tensors outside every transform go through torch's multi-tensor kernels;
all others leaf by leaf, with the same result.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import foreach_add, foreach_lerp, foreach_mul, foreach_norm, foreach_sub
from torchpure._types import Tree
from torchpure.errors import StructureError

from ._backend import flatten, unflatten
from ._core import align, describe, paths
from ._plain import plain

Number = float | int | complex | Tensor


def add(tree: Tree, other: Tree) -> Tree:
    """Add leaf by leaf.

    >>> add({"w": torch.ones(2)}, {"w": torch.ones(2)})
    {'w': tensor([2., 2.])}
    """
    return _zipped("add", foreach_add, operator.add, tree, other)


def sub(tree: Tree, other: Tree) -> Tree:
    """Subtract leaf by leaf."""
    return _zipped("sub", foreach_sub, operator.sub, tree, other)


def scale(tree: Tree, factor: Number) -> Tree:
    """Multiply each leaf by one number or tensor of shape (); a float leaf keeps its dtype.

    >>> scale((torch.ones(2), torch.ones(())), 3.0)
    (tensor([3., 3.]), tensor(3.))
    """
    leaves, structure = _numeric("scale", tree)
    if not isinstance(factor, Tensor) and plain(leaves) and leaves:
        return unflatten(structure, foreach_mul(leaves, factor))
    return unflatten(structure, [leaf * cast(factor, leaf) for leaf in leaves])


def lerp(tree: Tree, other: Tree, weight: Number) -> Tree:
    """Interpolate leaf by leaf: `tree + weight (other - tree)`."""

    def leafwise(a: Any, b: Any) -> Any:
        if isinstance(weight, Tensor) or not (isinstance(a, Tensor) and isinstance(b, Tensor)) or not _alike(a, b):
            return a + cast(weight, a) * (b - a)
        return torch.lerp(a, b, weight)

    multi_tensor = None if isinstance(weight, Tensor) else lambda a, b: foreach_lerp(a, b, weight)
    return _zipped("lerp", multi_tensor, leafwise, tree, other)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and (a.is_floating_point() or a.is_complex())


def where(condition: Tensor, tree: Tree, other: Tree) -> Tree:
    """Choose leaf by leaf: from `tree` where the condition holds, else from `other`."""
    return _zipped("where", None, lambda a, b: torch.where(condition, a, b), tree, other)


def zeros_like(tree: Tree) -> Tree:
    """Make a tree of zeros; numbers that are not tensors become 0 of their kind."""
    leaves, structure = _numeric("zeros_like", tree)
    return unflatten(
        structure, [torch.zeros_like(leaf) if isinstance(leaf, Tensor) else type(leaf)(0) for leaf in leaves]
    )


def dot(tree: Tree, other: Tree) -> Tensor:
    """Sum the products of all entries, the first conjugated; shape ().

    >>> dot({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 4.0])})
    tensor(11.)
    """
    leaves, structure = _numeric("dot", tree)
    others = align(structure, tree, other, "tree.dot")
    _check_numbers("dot", others, tree)
    return _total([torch.vdot(*_vectors(a, b)) for a, b in zip(leaves, others, strict=True)])


def norm(tree: Tree) -> Tensor:
    """Return the Euclidean norm over all entries, shape (); its gradient at zero is zero."""
    leaves, _ = _numeric("norm", tree)
    if not leaves:
        return _total([])
    try:
        norms = list(foreach_norm(leaves)) if plain(leaves) else None
    except RuntimeError:  # of integers
        norms = None
    if norms is None:
        norms = [torch.linalg.vector_norm(_inexact(leaf)) for leaf in leaves]
    return torch.linalg.vector_norm(torch.stack(_promoted(norms)))


def cast(number: Number, like: Any) -> Number:
    """Give a tensor of shape () the dtype and device of a leaf, so that it changes neither.

    The real part's dtype for a real number and a complex leaf; an integer leaf is left to torch's promotion.
    """
    if not isinstance(number, Tensor) or not isinstance(like, Tensor):
        return number
    if not like.is_floating_point() and not like.is_complex():
        return number
    dtype = like.dtype if number.is_complex() or not like.is_complex() else like.dtype.to_real()
    return number.to(device=like.device, dtype=dtype)


def _numeric(who: str, tree: Tree) -> tuple[list[Any], Any]:
    leaves, structure = flatten(tree)
    _check_numbers(who, leaves, tree)
    return leaves, structure


def _check_numbers(who: str, leaves: list[Any], tree: Tree) -> None:
    """Check leaves that stand at the places of those of `tree`."""
    if not all(isinstance(leaf, Tensor | float | int | complex) for leaf in leaves):
        odd = next(i for i, leaf in enumerate(leaves) if not isinstance(leaf, Tensor | float | int | complex))
        raise StructureError(
            f"tree.{who}: cannot compute with {describe(leaves[odd])} at `{paths(tree)[odd]}`: wanted numbers"
        )


def _zipped(
    who: str, multi_tensor: Callable[..., Any] | None, leafwise: Callable[[Any, Any], Any], tree: Tree, other: Tree
) -> Tree:
    leaves, structure = _numeric(who, tree)
    others = align(structure, tree, other, f"tree.{who}")
    if multi_tensor and leaves and plain(leaves) and plain(others):
        try:
            return unflatten(structure, multi_tensor(leaves, others))
        except RuntimeError:  # mixed dtypes, or shapes that do not fit, which the leaves will tell of
            pass
    _check_numbers(who, others, tree)
    return unflatten(structure, [leafwise(a, b) for a, b in zip(leaves, others, strict=True)])


def _inexact(leaf: Any) -> Tensor:
    tensor = torch.as_tensor(leaf)
    return tensor if tensor.is_floating_point() or tensor.is_complex() else tensor.to(torch.get_default_dtype())


def _vectors(a: Any, b: Any) -> list[Tensor]:
    return _promoted([torch.as_tensor(a).reshape(-1), torch.as_tensor(b).reshape(-1)])


def _promoted(tensors: list[Tensor]) -> list[Tensor]:
    dtype = tensors[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


def _total(terms: list[Tensor]) -> Tensor:
    return torch.stack(_promoted(terms)).sum() if terms else torch.zeros((), dtype=torch.float32)
