"""Clipping by the global norm (Pascanu et al. 2013, arXiv:1211.5063, algorithm 1)."""

from typing import NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Updates

from ._base import Optimizer, check_positive


class ClipState(NamedTuple):
    """State of `clip_by_global_norm`: none."""


def clip_by_global_norm(max_norm: float) -> Optimizer[ClipState]:
    """Scale the gradients down so that their Euclidean norm over all leaves is at most `max_norm`.

    As a part of `chain`; gradients whose norm is not above it come out as they went in.

    Raises:
        ValueError: `max_norm` is negative.

    >>> clip = clip_by_global_norm(1.0)
    >>> clip.update(torch.tensor([3.0, 4.0]), clip.init(None), None)[0]
    tensor([0.6000, 0.8000])
    """
    check_positive("clip_by_global_norm", max_norm=max_norm)

    def update(grads: Grads, state: ClipState, params: Params) -> tuple[Updates, ClipState]:
        norm = tree.norm(grads)
        limit = torch.as_tensor(max_norm, dtype=norm.dtype, device=norm.device)
        factor = torch.where(norm > limit, limit / torch.where(norm > limit, norm, 1), 1)
        return tree.map(lambda leaf: _scaled(leaf, factor), grads), state

    return Optimizer(lambda params: ClipState(), update)


def _scaled(leaf: Tensor, factor: Tensor) -> Tensor:
    return leaf * tree.cast(factor, leaf)
