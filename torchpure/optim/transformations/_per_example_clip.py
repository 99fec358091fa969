"""Clipping of each example's gradient, for private training (Abadi et al. 2016, arXiv:1607.00133, algorithm 1)."""

import math

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads
from torchpure.errors import StructureError
from torchpure.optim.core import Number, check_nonnegative, safe_sqrt


def per_example_global_norm_clip(grads: Grads, l2_norm_clip: Number) -> tuple[Grads, Tensor]:
    """Clip the norm of each example's gradient over all leaves, and sum: Σᵢ gᵢ min(1, clip / ‖gᵢ‖).

    The first dimension of each leaf is the examples. Returns (sums, number of clipped examples).

    Raises:
        StructureError: there is no leaf, or leaves differ in their first dimension, or have none.
        ValueError: `l2_norm_clip` is negative.

    >>> per_example_global_norm_clip(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0)
    (tensor([0.9000, 1.2000]), tensor(1))
    """
    caller = "per_example_global_norm_clip"
    check_nonnegative(caller, l2_norm_clip=l2_norm_clip)
    _check_examples(caller, grads)
    norms = safe_sqrt(torch.stack([_squares(leaf) for leaf in tree.leaves(grads)]).sum(0))
    above = norms > l2_norm_clip
    factors = torch.where(above, l2_norm_clip / torch.where(above, norms, 1), 1)
    return tree.map(lambda leaf: torch.tensordot(factors.to(leaf.dtype), leaf, dims=1), grads), above.sum()


def per_example_layer_norm_clip(
    grads: Grads, global_l2_norm_clip: Number, *, uniform: bool = True
) -> tuple[Grads, Grads]:
    """Clip the norm of each example's gradient in each leaf, and sum over the examples.

    With `uniform`, the limit of each of L leaves is clip / √L; else it is clip · √(its entries / all entries).
    Returns (sums, number of clipped examples for each leaf). From McMahan et al. 2018, arXiv:1710.06963, section 2.

    Raises:
        StructureError: there is no leaf, or leaves differ in their first dimension, or have none.

    >>> per_example_layer_norm_clip((torch.tensor([[3.0, 4.0], [0.3, 0.4]]),), 1.0)
    ((tensor([0.9000, 1.2000]),), (tensor(1),))
    """
    _check_examples("per_example_layer_norm_clip", grads)
    leaves, structure = tree.flatten(grads)
    sizes = [1 if uniform else math.prod(leaf.shape[1:]) for leaf in leaves]
    limits = [global_l2_norm_clip * (size / sum(sizes)) ** 0.5 for size in sizes]
    results = [per_example_global_norm_clip(leaf, limit) for leaf, limit in zip(leaves, limits, strict=True)]
    sums, counts = zip(*results, strict=True)
    return tree.unflatten(structure, sums), tree.unflatten(structure, counts)


def _squares(leaf: Tensor) -> Tensor:
    flat = leaf.flatten(1) if leaf.ndim > 1 else leaf[:, None]
    return (torch.view_as_real(flat).flatten(1) if flat.is_complex() else flat).square().sum(1)


def _check_examples(caller: str, grads: Grads) -> None:
    leaves = tree.leaves(grads)
    if not leaves:
        raise StructureError(f"{caller}: wanted at least one gradient, got none")
    for path, leaf in zip(tree.paths(grads), leaves, strict=True):
        if leaf.ndim == 0 or len(leaf) != len(leaves[0]):
            wanted = f"{len(leaves[0])} examples in the first dimension" if leaves[0].ndim else "a first dimension"
            raise StructureError(
                f"{caller}: at `{path}`: wanted {wanted}, got {tree.describe(leaf)}: vmap the gradient"
            )
