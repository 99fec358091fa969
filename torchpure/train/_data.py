"""The data of a fit: tensors, NumPy arrays, a dict of either, or an iterable of batches of these."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from torchpure import tree
from torchpure._types import Params, Tree

Batch = tuple[Any, ...]
_NUMBERS = [
    np.dtype(name)
    for name in (
        *("float16", "float32", "float64", "complex64", "complex128", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
]
_PAIR = "(inputs …, target)"
_DTYPE_SIGNS = (
    "dtype",
    "Input type",
    "data type",
    "scalar type",
    "not implemented for '",
    "Double",
    "Long",
)  # in torch's errors


class Data(NamedTuple):
    """Data with all rows in tensors, or as batches."""

    tensors: tuple[Tensor, ...]  # empty if `batches` has the data
    batches: Iterable[Any] | None
    names: tuple[Any, ...] | None  # the keys of a dict that a loss function gets as a dict

    def arguments(self, batch: Batch) -> Batch:
        """Return the arguments of a loss for some rows of the tensors."""
        return batch if self.names is None else (dict(zip(self.names, batch, strict=True)),)


class BatchReader(NamedTuple):
    """How data and batches become arguments of a loss."""

    for_module: bool  # a module needs inputs and a target; a loss function gets any batch
    dtype: torch.dtype | None  # for floating-point arrays of NumPy

    def read(self, data: Any) -> Data:
        """Return the data of a fit.

        Raises:
            TypeError: the data is of another kind, or has no target for a module.
        """
        arrays = data if isinstance(data, tuple) else tuple(data.values()) if isinstance(data, dict) else (data,)
        if arrays and all(isinstance(array, Tensor | np.ndarray) for array in arrays):
            self._check_target(arrays, data)
            names = tuple(data) if isinstance(data, dict) and not self.for_module else None
            return Data(tuple(self._to_tensor(array) for array in arrays), None, names)
        if isinstance(data, dict | str | nn.Module) or not isinstance(data, Iterable):
            raise TypeError(f"fit: data must be tensors or an iterable of batches, got {_describe(data)}")
        return Data((), data, None)

    def batch(self, given: Any) -> Batch:
        """Return the arguments of a loss for one batch.

        Raises:
            TypeError: the batch has no target for a module.
        """
        if isinstance(given, dict) and self.for_module:
            given = tuple(given.values())
        parts = tuple(given) if isinstance(given, tuple | list) else (given,)
        self._check_target(parts, given)
        if not any(isinstance(leaf, np.ndarray | np.generic) for leaf in tree.leaves(parts)):
            return parts
        return tree.map(self._to_tensor, parts)

    def batches(self, given: Iterable[Any]) -> Iterator[Batch]:
        """Yield the arguments of a loss for each batch. Equal objects in a row give one object."""
        last, result = None, None
        for batch in given:
            if result is None or batch is not last:
                last, result = batch, self.batch(batch)
            yield result

    def _check_target(self, parts: Batch, given: Any) -> None:
        if self.for_module and len(parts) < 2:
            raise TypeError(
                f"fit: a module needs data {_PAIR}, got only {tree.describe(parts[0] if parts else given)}: pass a "
                "tuple, as in fit(module, (x, y), …), or a loss function instead of the module"
            )

    def _to_tensor(self, array: Any) -> Any:
        if not isinstance(array, np.ndarray | np.generic):
            return array
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(
                "fit: data has a masked array: fill what is masked, as in array.filled(0), or drop its rows"
            )
        if array.dtype.newbyteorder("=") not in _NUMBERS:
            raise TypeError(
                f"fit: data has an array of dtype {array.dtype}: wanted numbers, of {', '.join(map(str, _NUMBERS))}"
            )
        # torch takes no negative strides and no other byte order
        tensor = torch.tensor(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape))
        return tensor.to(self.dtype) if self.dtype is not None and tensor.is_floating_point() else tensor


def _describe(data: Any) -> str:
    """Describe data that a fit cannot take; of a dict, the first entry that is no array."""
    if isinstance(data, nn.Module):
        return f"the module {type(data).__name__}"
    for name, value in data.items() if isinstance(data, dict) else ():
        if not isinstance(value, Tensor | np.ndarray):
            return f"a dict with {tree.describe(value)} at {name!r}"
    if isinstance(data, torch.utils.data.Dataset):
        return f"the dataset {type(data).__name__}: pass a torch.utils.data.DataLoader"
    return tree.describe(data)


@contextmanager
def explained_dtypes(inputs: Batch, params: Params) -> Iterator[None]:
    """Replace torch's error where a model cannot take the dtype of its inputs.

    Raises:
        TypeError: the model failed with an error about dtypes, and an input has another dtype than the parameters.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        wanted = float_dtype(params)
        other = [leaf for leaf in tree.leaves(inputs) if isinstance(leaf, Tensor) and leaf.dtype != wanted]
        if wanted is None or not other or not any(sign in str(error) for sign in _DTYPE_SIGNS):
            raise
        name = str(wanted).removeprefix("torch.")
        raise TypeError(
            f"fit: the model has parameters of dtype {name}, and gets {tree.describe(other[0])}: "
            f"convert the data, as in x.to(torch.{name})"
        ) from error


def float_dtype(params: Params) -> torch.dtype | None:
    """Return the dtype of the first floating-point tensor of parameters."""
    leaves: list[Tree] = tree.leaves(params)
    return next((leaf.dtype for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()), None)
