"""Operations whose result gets, in torch, the same tensor as its tangent that the argument has.

In torch 2.13, changing the result in place then changes the tangent of the argument too.
"""

from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure.transforms.constants import reinterpreted

from ._override import Override, Where


def _with_new_tangent(operation: Any) -> Any:
    """Clone the results, which gives them tangents of their own."""

    def run(*args: Any, **kwargs: Any) -> Any:
        out = operation(*args, **kwargs)
        return tree.map(lambda leaf: leaf.clone(), out) if kwargs.get("out") is None else out

    return run


_SHARE_TANGENT = (
    torch.frac, Tensor.frac, torch.fmod, Tensor.fmod, torch.remainder, Tensor.remainder,
    torch.alias_copy, torch.as_strided_copy, torch.diagonal_copy, torch.expand_copy,
    torch.permute_copy, torch.select_copy, torch.slice_copy, torch.split_copy,
    torch.split_with_sizes_copy, torch.squeeze_copy, torch.t_copy, torch.transpose_copy, torch.unbind_copy,
    torch.unfold_copy, torch.unsqueeze_copy, torch.view_as_complex_copy, torch.view_as_real_copy,
)  # fmt: skip

OVERRIDES = tuple(
    Override([operation], Where.FORWARD_MODE, _with_new_tangent(rule))
    for operation, rule in [
        *((operation, operation) for operation in _SHARE_TANGENT),
        (torch.view_copy, reinterpreted(torch.view_copy)),
    ]
)
