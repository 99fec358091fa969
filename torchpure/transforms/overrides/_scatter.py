"""Scatters, splits and slices.

In torch 2.13 the gradient of `as_strided_scatter` is wrong, and so is that of `select_scatter` under vmap. The forward
derivative of `scatter_reduce` with "prod" is zero, and so are third gradients at three zeros. `column_stack` raises
under transforms, and so do `tensor_split` and `narrow` with positions in tensors. `one_hot` reads numbers inside of a
gradient; under vmap and in a trace it takes classes that are too large for none.
"""

import re
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure._torch import FakeTensor
from torchpure.errors import TransformError
from torchpure.transforms import formulas
from torchpure.transforms.engine import functorch, innermost, is_differentiated, is_variable, user_line

from ._override import Override, Where


def _select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    if not -input.ndim <= dim < input.ndim or not -input.shape[dim] <= index < input.shape[dim]:
        return torch.select_scatter(input, src, dim, index)  # raises
    at_index = torch.arange(input.shape[dim], device=input.device) == index % input.shape[dim]
    chosen = at_index.reshape([-1 if i == dim % input.ndim else 1 for i in range(input.ndim)])
    return torch.where(chosen, src.to(input.dtype).unsqueeze(dim), input)


def _as_strided_scatter(
    input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None
) -> Tensor:
    if not input.is_contiguous():
        raise TransformError("as_strided_scatter has a wrong derivative in torch: make the input contiguous")
    start = 0 if storage_offset is None else storage_offset - input.storage_offset()
    positions = torch.arange(input.numel(), device=input.device).as_strided(size, stride, start).reshape(-1)
    return input.reshape(-1).scatter(0, positions, src.reshape(-1)).reshape(input.shape)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Compute `F.one_hot` without reading numbers: by a scatter, and in programs by a comparison, which fuses.

    Both find classes out of range.

    Raises:
        TransformError: a class is out of range.
        TransformError: the number of classes is not given, and depends on a mapped or traced tensor.
    """
    try:
        return _one_hot(tensor, num_classes)
    except RuntimeError as error:
        if not (found := _WRONG_CLASS.search(str(error))):
            raise
        value = found[1] or int(tensor.amin() if "negative" in found[0] else tensor.amax())
        raise TransformError(
            f"one_hot{user_line()} is given the class {value}: wanted classes from 0 to {num_classes - 1}, for "
            f"num_classes={num_classes}"
            if num_classes > 0
            else f"one_hot{user_line()} is given the class {value}: wanted classes of at least 0"
        ) from error


_WRONG_CLASS = re.compile(r"index (-?\d+) is out of bounds|Class values must be (?:smaller|non-negative)")


def _one_hot(tensor: Tensor, num_classes: int) -> Tensor:
    traced = isinstance(innermost(tensor), FakeTensor)
    known = not (traced or functorch.is_functorch_wrapped_tensor(tensor))
    if known or num_classes == 0 or num_classes < -1 or tensor.dtype != torch.int64:
        return F.one_hot(tensor, num_classes)  # or raises
    if num_classes == -1:
        raise TransformError(
            f"one_hot{user_line()} without num_classes has as many classes as the largest number needs, which cannot "
            "be read inside of vmap and jit: give it num_classes="
        )
    if traced:
        classes = torch.arange(num_classes, dtype=tensor.dtype, device=tensor.device)
        checked = classes.gather(0, tensor.reshape(-1)).reshape(tensor.shape)
        return (checked.unsqueeze(-1) == classes).to(tensor.dtype)
    zeros = torch.zeros((*tensor.shape, num_classes), dtype=tensor.dtype, device=tensor.device)
    return zeros.scatter(-1, tensor.unsqueeze(-1), 1)


def _column_stack(tensors: Any) -> Tensor:
    return torch.cat([leaf.reshape(-1, 1) if leaf.ndim <= 1 else leaf for leaf in tensors], 1)


def _scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, **other: Any) -> Tensor:
    if reduce == "prod" and _is_followed(input, src):
        return formulas.scatter_product(input, dim, index, src, **other)
    return torch.scatter_reduce(input, dim, index, src, reduce, **other)


def _index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, **other: Any) -> Tensor:
    if reduce == "prod" and _is_followed(input, source):
        return formulas.index_product(input, dim, index, source, **other)
    return torch.index_reduce(input, dim, index, source, reduce, **other)


def _is_followed(*leaves: Tensor) -> bool:
    """Return whether a transform follows one of the tensors: torch's backward pass of products reads numbers."""
    return is_variable(leaves[0]) and any(
        functorch.is_functorch_wrapped_tensor(leaf) or is_differentiated(leaf) for leaf in leaves
    )


def _in_place(rule: Any) -> Any:
    return lambda self, *args, **kwargs: self.copy_(rule(self.clone(), *args, **kwargs))


def _tensor_split(input: Tensor, indices_or_sections: Any = None, dim: int = 0, **other: Any) -> Any:
    parts = indices_or_sections if indices_or_sections is not None else next(iter(other.values()))
    return torch.tensor_split(input, _to_python(parts), dim)


def _narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    return torch.narrow(input, dim, _to_python(start), length)


def _to_python(value: Any) -> Any:
    """Read the numbers of a tensor: torch reads them too, by an operation that has no rule."""
    if not isinstance(value, Tensor):
        return value
    found = value.tolist()
    return tuple(found) if isinstance(found, list) else found


OVERRIDES = (
    Override([F.one_hot], Where.ALWAYS, one_hot),
    Override([torch.select_scatter, Tensor.select_scatter], Where.ALWAYS, _select_scatter),
    Override([torch.as_strided_scatter, Tensor.as_strided_scatter], Where.ALWAYS, _as_strided_scatter),
    Override([torch.column_stack], Where.ALWAYS, _column_stack),
    Override([torch.scatter_reduce, Tensor.scatter_reduce], Where.ALWAYS, _scatter_reduce),
    Override([Tensor.scatter_reduce_], Where.ALWAYS, _in_place(_scatter_reduce)),
    Override([torch.index_reduce, Tensor.index_reduce], Where.ALWAYS, _index_reduce),
    Override([Tensor.index_reduce_], Where.ALWAYS, _in_place(_index_reduce)),
    Override([torch.tensor_split, Tensor.tensor_split], Where.ALWAYS, _tensor_split),
    Override([torch.narrow, Tensor.narrow], Where.ALWAYS, _narrow),
)
