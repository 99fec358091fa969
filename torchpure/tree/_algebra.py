"""Vector arithmetic on trees, for optimizers.

Every function returns a new tree. Plain tensors outside every transform use torch's multi-tensor kernels. All other
leaves are computed one by one, with the same result.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import foreach_add, foreach_lerp, foreach_mul, foreach_norm, foreach_sub
from torchpure._types import T, Tree
from torchpure.errors import StructureError

from ._backend import flatten, unflatten
from ._core import align, describe, paths
from ._plain import plain

Number = float | int | complex | Tensor


def add(tree: T, other: T) -> T:
    """Add leaf by leaf.

    >>> add({"w": torch.ones(2)}, {"w": torch.ones(2)})
    {'w': tensor([2., 2.])}
    """
    return _map_pairs("add", foreach_add, operator.add, tree, other)


def sub(tree: T, other: T) -> T:
    """Subtract leaf by leaf.

    >>> sub([torch.ones(2)], [torch.ones(2)])
    [tensor([0., 0.])]
    """
    return _map_pairs("sub", foreach_sub, operator.sub, tree, other)


def scale(tree: T, factor: Number) -> T:
    """Multiply each leaf by a number or a tensor of shape (); a float leaf keeps its dtype.

    >>> scale((torch.ones(2), torch.ones(())), 3.0)
    (tensor([3., 3.]), tensor(3.))
    """
    leaves, structure = _flatten_numbers("scale", tree)
    if not isinstance(factor, Tensor) and plain(leaves) and leaves:
        return unflatten(structure, foreach_mul(leaves, factor))
    return unflatten(structure, [leaf * cast(factor, leaf) for leaf in leaves])


def lerp(tree: Tree, other: Tree, weight: Number) -> Tree:
    """Interpolate leaf by leaf: `tree + weight (other - tree)`.

    >>> lerp([torch.zeros(2)], [torch.ones(2)], 0.25)
    [tensor([0.2500, 0.2500])]
    """

    def leafwise(a: Any, b: Any) -> Any:
        if isinstance(weight, Tensor) or not (isinstance(a, Tensor) and isinstance(b, Tensor)) or not _can_lerp(a, b):
            return a + cast(weight, a) * (b - a)
        return torch.lerp(a, b, weight)

    multi_tensor = None if isinstance(weight, Tensor) else lambda a, b: foreach_lerp(a, b, weight)
    return _map_pairs("lerp", multi_tensor, leafwise, tree, other)


def _can_lerp(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and (a.is_floating_point() or a.is_complex())


def where(condition: Tensor, tree: Tree, other: Tree) -> Tree:
    """Select entries leaf by leaf: from `tree` where the condition is true, else from `other`.

    >>> where(torch.tensor(True), [torch.ones(1)], [torch.zeros(1)])
    [tensor([1.])]
    """
    return _map_pairs("where", None, lambda a, b: torch.where(condition, a, b), tree, other)


def zeros_like(tree: T) -> T:
    """Make a tree of zeros; a Python number becomes the 0 of its type.

    >>> zeros_like({"a": torch.ones(2), "b": 3})
    {'a': tensor([0., 0.]), 'b': 0}
    """
    leaves, structure = _flatten_numbers("zeros_like", tree)
    return unflatten(
        structure, [torch.zeros_like(leaf) if isinstance(leaf, Tensor) else type(leaf)(0) for leaf in leaves]
    )


def dot(tree: Tree, other: Tree) -> Tensor:
    """Sum the products of all entries, with `tree` conjugated; shape ().

    >>> dot({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 4.0])})
    tensor(11.)
    """
    leaves, structure = _flatten_numbers("dot", tree)
    others = align(structure, tree, other, "tree.dot")
    _check_numbers("dot", others, tree)
    return _sum_terms([torch.vdot(*_vectors(a, b)) for a, b in zip(leaves, others, strict=True)])


def norm(tree: Tree) -> Tensor:
    """Return the Euclidean norm over all entries, shape (); its gradient at zero is zero.

    >>> norm({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    tensor(5.)
    """
    leaves, _ = _flatten_numbers("norm", tree)
    if not leaves:
        return _sum_terms([])
    try:
        norms = list(foreach_norm(leaves)) if plain(leaves) else None
    except RuntimeError:  # integer leaves
        norms = None
    if norms is None:
        norms = [torch.linalg.vector_norm(_as_float(leaf)) for leaf in leaves]
    return torch.linalg.vector_norm(torch.stack(_promote(norms)))


def cast(number: Number, like: Any) -> Number:
    """Convert a tensor of shape () to the dtype and device of a leaf, so that the leaf keeps both in arithmetic.

    For a real number and a complex leaf, use the dtype of the leaf's real part. For an integer leaf, return the number
    unchanged and let torch promote.

    >>> cast(torch.tensor(0.5, dtype=torch.float64), torch.ones(2)).dtype
    torch.float32
    """
    if not isinstance(number, Tensor) or not isinstance(like, Tensor):
        return number
    if not like.is_floating_point() and not like.is_complex():
        return number
    dtype = like.dtype if number.is_complex() or not like.is_complex() else like.dtype.to_real()
    return number.to(device=like.device, dtype=dtype)


def _flatten_numbers(caller: str, tree: Tree) -> tuple[list[Any], Any]:
    leaves, structure = flatten(tree)
    _check_numbers(caller, leaves, tree)
    return leaves, structure


def _check_numbers(caller: str, leaves: list[Any], tree: Tree) -> None:
    """Check that all leaves are numbers; the leaves are in the order of `tree`, which gives the paths."""
    if not all(isinstance(leaf, Tensor | float | int | complex) for leaf in leaves):
        index = next(i for i, leaf in enumerate(leaves) if not isinstance(leaf, Tensor | float | int | complex))
        raise StructureError(
            f"tree.{caller}: cannot compute with {describe(leaves[index])} at `{paths(tree)[index]}`: wanted numbers"
        )


def _map_pairs(
    caller: str, multi_tensor: Callable[..., Any] | None, leafwise: Callable[[Any, Any], Any], tree: Tree, other: Tree
) -> Tree:
    leaves, structure = _flatten_numbers(caller, tree)
    others = align(structure, tree, other, f"tree.{caller}")
    if multi_tensor and leaves and plain(leaves) and plain(others):
        try:
            return unflatten(structure, multi_tensor(leaves, others))
        except RuntimeError:  # mixed dtypes, or shapes that do not fit: the loop below raises the clearer error
            pass
    _check_numbers(caller, others, tree)
    return unflatten(structure, [leafwise(a, b) for a, b in zip(leaves, others, strict=True)])


def _as_float(leaf: Any) -> Tensor:
    tensor = torch.as_tensor(leaf)
    return tensor if tensor.is_floating_point() or tensor.is_complex() else tensor.to(torch.get_default_dtype())


def _vectors(a: Any, b: Any) -> list[Tensor]:
    return _promote([torch.as_tensor(a).reshape(-1), torch.as_tensor(b).reshape(-1)])


def _promote(tensors: list[Tensor]) -> list[Tensor]:
    dtype = tensors[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


def _sum_terms(terms: list[Tensor]) -> Tensor:
    return torch.stack(_promote(terms)).sum() if terms else torch.zeros((), dtype=torch.float32)
