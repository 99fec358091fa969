"""Operations whose tangent is the very tensor of their argument."""

from typing import Any

import torch
from torch import Tensor

from torchpure import tree

from ._override import Override, Where


def _apart(operation: Any) -> Any:
    """Give results a tangent of their own, which may be changed in place: torch hands on that of what went in."""

    def run(*args: Any, **kwargs: Any) -> Any:
        out = operation(*args, **kwargs)
        return tree.map(lambda leaf: leaf.clone(), out) if kwargs.get("out") is None else out

    return run


_HANDS_ON = (
    torch.frac, Tensor.frac, torch.fmod, Tensor.fmod, torch.remainder, Tensor.remainder,
    torch.alias_copy, torch.as_strided_copy, torch.diagonal_copy, torch.expand_copy,
    torch.permute_copy, torch.select_copy, torch.slice_copy, torch.split_copy,
    torch.split_with_sizes_copy, torch.squeeze_copy, torch.t_copy, torch.transpose_copy, torch.unbind_copy,
    torch.unfold_copy, torch.unsqueeze_copy, torch.view_as_complex_copy, torch.view_as_real_copy, torch.view_copy,
)  # fmt: skip

OVERRIDES = tuple(Override([operation], Where.FORWARD_MODE, _apart(operation)) for operation in _HANDS_ON)
