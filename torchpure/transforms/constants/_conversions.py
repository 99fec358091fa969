"""Numbers taken from a tensor that is differentiated: `x.item()`, `float(x)`, `torch.tensor([x, y])`.

A Python number has no derivative, so torch's result is silently a constant. Reading a number is refused; a new tensor
of tensors is built by `stack`. Conditions (`if x > 0`, `bool(x)`) and printing are allowed.
"""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import FakeTensor
from torchpure.errors import TransformError
from torchpure.transforms.engine import innermost, is_differentiated, is_followed, user_line

CONVERSIONS = {  # operations -> how the code looks
    Tensor.item: ".item()",
    Tensor.tolist: ".tolist()",
    Tensor.numpy: ".numpy()",
    Tensor.__array__: "numpy's conversion",
    Tensor.__float__: "float() or a function of math",
    Tensor.__int__: "int()",
    Tensor.__index__: "a use as an index",
    Tensor.__complex__: "complex()",
    Tensor.__dlpack__: "dlpack",
}


def refuse_conversion(operation: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return an interception that refuses to read a number from a tensor that is differentiated."""

    def before(args: Any, kwargs: Any) -> tuple[Any, Any]:
        if is_differentiated(args[0]):
            raise TransformError(
                f"{CONVERSIONS[operation]}{user_line()} reads numbers from a tensor that is differentiated: the "
                "derivative through them would be lost. Compute with the tensor; if a constant is meant, use "
                "tp.stop_gradient(x) first"
            )
        return args, kwargs

    return before


def _new_tensor(operation: Any, first: int) -> Callable[..., Tensor]:
    """Return the rule of an operation that copies numbers; `first` is the position of the data."""

    def run(*args: Any, **kwargs: Any) -> Tensor:
        data = args[first] if len(args) > first else kwargs.get("data", kwargs.get("obj"))
        if kwargs.get("requires_grad") or not any(map(_has_no_numbers, _tensors(data))):
            return operation(*args, **kwargs)
        if isinstance(data, Tensor) and operation in {torch.as_tensor, torch.asarray}:
            return operation(*args, **kwargs)  # the tensor itself, or `to`
        dtype = kwargs.get("dtype") or (args[0].dtype if first else reduce(torch.promote_types, _dtypes(data)))
        device = kwargs.get("device") or (args[0] if first else next(_tensors(data))).device
        return _stacked(data, dtype, device)

    return run


def _is_sequence(data: Any) -> bool:
    """Return whether torch takes a value for a list of numbers."""
    if isinstance(data, list | tuple):
        return True
    if isinstance(data, Tensor | str | bytes) or hasattr(data, "__array__") or hasattr(data, "keys"):
        return False
    return hasattr(data, "__len__") and hasattr(data, "__getitem__")


def _has_no_numbers(leaf: Tensor) -> bool:
    """Return whether a transform or a tracer follows a tensor: a copy of its numbers would be a constant."""
    return is_followed(leaf) or isinstance(innermost(leaf), FakeTensor)


def _tensors(data: Any) -> Iterator[Tensor]:
    if isinstance(data, Tensor):
        yield data
    elif _is_sequence(data):
        for part in data:
            yield from _tensors(part)


def _dtypes(data: Any) -> Iterator[torch.dtype]:
    if _is_sequence(data):
        for part in data:
            yield from _dtypes(part)
    else:
        yield data.dtype if isinstance(data, Tensor) else torch.tensor(data).dtype


def _stacked(data: Any, dtype: torch.dtype, device: Any) -> Tensor:
    if _is_sequence(data):
        return torch.stack([_stacked(part, dtype, device) for part in data])
    if not isinstance(data, Tensor):
        return torch.tensor(data, dtype=dtype, device=device)
    return data.clone().to(dtype=dtype, device=device)


NEW_TENSORS = {
    torch.tensor: _new_tensor(torch.tensor, 0),
    torch.as_tensor: _new_tensor(torch.as_tensor, 0),
    torch.asarray: _new_tensor(torch.asarray, 0),
    Tensor.new_tensor: _new_tensor(Tensor.new_tensor, 1),
    Tensor.new: _new_tensor(Tensor.new, 1),  # type: ignore[attr-defined] of older programs
}
