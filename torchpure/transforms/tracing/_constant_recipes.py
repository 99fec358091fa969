"""Numbers that a traced function asks for, of tensors that depend on none of its arguments.

What is computed from constants has numbers (`RealConstants`). What is made of sizes alone, such as `torch.zeros(3)`, is
an operation of the program; its numbers are found by running the operations that made it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._torch import FakeTensor, disable_current_modes
from torchpure.transforms.purity import operator_draws, written

_LARGEST = 1 << 22  # elements of one tensor: the numbers of more take long, and nobody asks for them


class Known(NamedTuple):
    """Values with numbers, and the constants that these come from."""

    values: Any
    constants: list[Tensor]


class _Recipe(NamedTuple):
    leaf: Tensor  # kept alive, so that its id is not used again
    run: Callable[[], Any]  # what made it, without its arguments
    given: Any  # its (args, kwargs)
    place: int  # among the results


class Recipes:
    """How the tensors that depend on no argument were made."""

    def __init__(self) -> None:
        self._recipes: dict[int, _Recipe] = {}
        self._lost: set[int] = set()  # memory that was written to later

    def note(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Take note of an operation."""
        schema = getattr(func, "_schema", None)
        if schema is None or operator_draws(func, args, kwargs):
            return
        if schema.is_mutable:
            self._lost.update(leaf.untyped_storage()._cdata for leaf in written(func, args, kwargs))
        elif all(not isinstance(leaf, FakeTensor) or id(leaf) in self._recipes for leaf in _tensors((args, kwargs))):
            for place, leaf in enumerate(_tensors(out)):
                own = id(leaf) in self._recipes  # a cast to the dtype that a tensor has gives the same tensor
                if leaf.numel() <= _LARGEST and not own:
                    self._recipes[id(leaf)] = _Recipe(leaf, func, (args, kwargs), place)

    def known(self, values: Any) -> Known | None:
        """Return values with numbers in the places of tensors without; None if some depend on an argument."""
        found: dict[int, Tensor] = {}
        constants: list[Tensor] = []
        todo = _tensors(values)
        while todo:
            leaf = todo[-1]
            recipe = self._recipes.get(id(leaf))
            if id(leaf) in found:
                todo.pop()
            elif leaf.untyped_storage()._cdata in self._lost:
                return None
            elif not isinstance(leaf, FakeTensor):
                constants.append(leaf)
                found[id(leaf)] = todo.pop()
            elif recipe is None:
                return None
            elif missing := [part for part in _tensors(recipe.given) if id(part) not in found]:
                todo.extend(missing)
            else:
                found[id(leaf)] = _made(recipe, found)
        return Known(_put(values, found), constants)

    def unmasked(self, x: Tensor, indices: Sequence[Any]) -> Known | None:
        """Write indices of `x` without masks; None if what a mask holds depends on an argument.

        Raises:
            IndexError: a mask has another shape than the dimensions that it chooses from.
        """
        masks = [index for index in indices if _is_mask(index)]
        found = self.known(masks) if masks else None
        if found is None:
            return None
        _check_masks(x, indices)
        held = iter(found.values)
        with disable_current_modes():
            parts = [next(held).nonzero().unbind(-1) if _is_mask(index) else (index,) for index in indices]
        return Known([index for part in parts for index in part], found.constants)


def _made(recipe: _Recipe, found: dict[int, Tensor]) -> Tensor:
    args, kwargs = _put(recipe.given, found)
    run: Any = recipe.run
    with disable_current_modes(), torch.no_grad():
        return _tensors(run(*args, **kwargs))[recipe.place]


def _check_masks(x: Tensor, indices: Sequence[Any]) -> None:
    dim = 0
    for index in indices:
        end = dim + (index.ndim if _is_mask(index) else 1)
        if _is_mask(index) and index.shape != x.shape[dim:end]:
            raise IndexError(
                f"a mask of shape {tuple(index.shape)} is to choose from dimensions {dim} to {end - 1} of a tensor of "
                f"shape {tuple(x.shape)}: they must be equal"
            )
        dim = end


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in {torch.bool, torch.uint8}


def _put(values: Any, found: dict[int, Tensor]) -> Any:
    return tree.map(lambda leaf: found.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf, values)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree.leaves(values) if isinstance(leaf, Tensor)]
