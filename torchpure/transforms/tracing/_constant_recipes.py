"""The numbers of tensors that depend on no argument of a traced function.

Values that are computed from constants have numbers (`RealConstants`). `torch.zeros(3)` is an operation of the program
instead. If the function asks for its numbers, the operations that made it run again.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._torch import FakeTensor, disable_current_modes
from torchpure.transforms.purity import mutated_arguments, operator_draws

_LARGEST = 1 << 22  # elements of one tensor; larger ones take long, and are not asked for


class KnownValues(NamedTuple):
    """Values with numbers, and the constants that they were computed from."""

    values: Any
    constants: list[Tensor]


class _Recipe(NamedTuple):
    leaf: Tensor  # kept alive, so that its id is not used again
    operation: Callable[..., Any]  # that made it
    arguments: Any  # (args, kwargs)
    index: int  # among the results


class Recipes:
    """The recipes of all tensors that depend on no argument."""

    def __init__(self) -> None:
        self._recipes: dict[int, _Recipe] = {}
        self._mutated: set[int] = set()  # storages that were written to later

    def note(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Record an operation."""
        schema = getattr(func, "_schema", None)
        if schema is None or operator_draws(func, args, kwargs):
            return
        if schema.is_mutable:
            self._mutated.update(leaf.untyped_storage()._cdata for leaf in mutated_arguments(func, args, kwargs))
        elif all(not isinstance(leaf, FakeTensor) or id(leaf) in self._recipes for leaf in _tensors((args, kwargs))):
            for index, leaf in enumerate(_tensors(out)):
                known = id(leaf) in self._recipes  # a cast to the same dtype returns its argument
                if leaf.numel() <= _LARGEST and not known:
                    self._recipes[id(leaf)] = _Recipe(leaf, func, (args, kwargs), index)

    def known(self, values: Any) -> KnownValues | None:
        """Return values with numbers in place of fake tensors; None if one depends on an argument."""
        found: dict[int, Tensor] = {}
        constants: list[Tensor] = []
        todo = _tensors(values)
        while todo:
            leaf = todo[-1]
            recipe = self._recipes.get(id(leaf))
            if id(leaf) in found:
                todo.pop()
            elif leaf.untyped_storage()._cdata in self._mutated:
                return None
            elif not isinstance(leaf, FakeTensor):
                constants.append(leaf)
                found[id(leaf)] = todo.pop()
            elif recipe is None:
                return None
            elif missing := [part for part in _tensors(recipe.arguments) if id(part) not in found]:
                todo.extend(missing)
            else:
                found[id(leaf)] = _compute(recipe, found)
        return KnownValues(_put(values, found), constants)

    def unmasked(self, x: Tensor, indices: Sequence[Any]) -> KnownValues | None:
        """Replace the masks among the indices of `x` by integer indices; None if a mask depends on an argument.

        Raises:
            IndexError: a mask has another shape than the dimensions that it selects from.
        """
        masks = [index for index in indices if _is_mask(index)]
        found = self.known(masks) if masks else None
        if found is None:
            return None
        _check_masks(x, indices)
        held = iter(found.values)
        with disable_current_modes():
            parts = [next(held).nonzero().unbind(-1) if _is_mask(index) else (index,) for index in indices]
        return KnownValues([index for part in parts for index in part], found.constants)


def _compute(recipe: _Recipe, found: dict[int, Tensor]) -> Tensor:
    args, kwargs = _put(recipe.arguments, found)
    operation: Any = recipe.operation
    with disable_current_modes(), torch.no_grad():
        return _tensors(operation(*args, **kwargs))[recipe.index]


def _check_masks(x: Tensor, indices: Sequence[Any]) -> None:
    dim = 0
    for index in indices:
        end = dim + (index.ndim if _is_mask(index) else 1)
        if _is_mask(index) and index.shape != x.shape[dim:end]:
            raise IndexError(
                f"a mask of shape {tuple(index.shape)} selects from dimensions {dim} to {end - 1} of a tensor of "
                f"shape {tuple(x.shape)}: they must be equal"
            )
        dim = end


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in {torch.bool, torch.uint8}


def _put(values: Any, found: dict[int, Tensor]) -> Any:
    return tree.map(lambda leaf: found.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf, values)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree.leaves(values) if isinstance(leaf, Tensor)]
