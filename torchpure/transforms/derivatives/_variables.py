"""Which leaves of the arguments are differentiated, and how results get the structure of the arguments.

Every derivative splits its arguments in the same way. The floating point and complex tensors of the chosen arguments
are variables. None, integer tensors, numbers and strings pass through, and the result holds None in their places.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import is_dataclass
from itertools import compress
from typing import Any

from torch import Tensor, nn

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.engine import argument_paths, describe_function, expose_all, is_variable

Argnums = int | Sequence[int]
ALL_ARGUMENTS: Any = object()  # as `argnums`: all positions


class Variables:
    """The leaves that are differentiated; immutable."""

    __slots__ = ("_args", "_chosen", "_every", "_position", "_positions", "_structure", "leaves")

    def __init__(self, caller: str, fn: Callable[..., Any], argnums: Argnums, args: tuple[Tree, ...]) -> None:
        self._position, self._positions = _positions(caller, fn, argnums, len(args))
        self._args = args
        leaves, self._structure = tree.flatten(self._part(args))
        every = expose_all(leaves)
        self._chosen = list(map(is_variable, every))
        self._every = None if all(self._chosen) else every  # None: all leaves are variables, the usual case
        self.leaves: list[Tensor] = every if self._every is None else list(compress(every, self._chosen))
        if not self.leaves:
            raise TransformError(_nothing_to_differentiate(caller, fn, self._positions, args))

    def arguments(self, values: Sequence[Tensor]) -> list[Tree]:
        """Return all arguments, with these values in the places of the variables."""
        part = tree.unflatten(self._structure, values if self._every is None else self._merged(values, self._every))
        args = list(self._args)
        if self._position is not None:
            args[self._position] = part
            return args
        for position, arg in zip(self._positions, part, strict=True):
            args[position] = arg
        return args

    def result(self, values: Sequence[Any]) -> Tree:
        """Arrange values, one for each variable, as the chosen arguments; other leaves become None."""
        if self._every is not None:
            values = self._merged(values, [None] * len(self._every))
        return tree.unflatten(self._structure, values)

    def match(self, caller: str, other: Tree) -> list[Any]:
        """List the leaves of a tree like the chosen arguments at the places of the variables.

        Raises:
            StructureError: the tree has another structure.
            TransformError: the tree has a number in the place of a Python number, which is no variable.
        """
        column = tree.align(self._structure, self._part(self._args), other, caller)
        for number, leaf in enumerate(self._every or ()):
            if type(leaf) in _NUMBERS and _is_nonzero_tangent(column[number], leaf):
                raise TransformError(
                    f"{caller}: {self._names()[number]} is {tree.describe(leaf)}, which is no variable, and has "
                    f"{tree.describe(column[number])}: make it a tensor, or pass None for it"
                )
        return list(compress(column, self._chosen))

    def paths(self) -> list[str]:
        """Name each variable by the number of its argument and its path."""
        return list(compress(self._names(), self._chosen))

    def _names(self) -> list[str]:
        return [name for position in self._positions for name in argument_paths(position, self._args[position])]

    def _part(self, args: Sequence[Tree]) -> Tree:
        return args[self._position] if self._position is not None else tuple(args[i] for i in self._positions)

    def _merged(self, values: Iterable[Any], others: list[Any]) -> list[Any]:
        remaining = iter(values)
        return [next(remaining) if chosen else other for chosen, other in zip(self._chosen, others, strict=True)]


_NUMBERS = {int, float, complex}


def _is_nonzero_tangent(part: Any, leaf: Any) -> bool:
    """Return whether a tangent for a Python number would change the result; zero and integers for integers do not."""
    return isinstance(part, Tensor) or (type(part) in _NUMBERS and part != 0 and not type(part) is type(leaf) is int)


def _positions(caller: str, fn: Callable[..., Any], argnums: Argnums, count: int) -> tuple[int | None, tuple[int, ...]]:
    """Return the position if `argnums` is an int, else None; and all positions."""
    if type(argnums) is int and 0 <= argnums < count:
        return argnums, (argnums,)
    if argnums is ALL_ARGUMENTS and count:
        return None, tuple(range(count))
    if not count:
        raise TransformError(
            f"{caller}: {describe_function(fn)} got no positional argument to differentiate. Give it by position"
        )
    numbers = tuple(argnums) if isinstance(argnums, Sequence) else (argnums,)
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or not -count <= number < count:
            raise TransformError(
                f"{caller}: argnums={argnums!r} does not fit the {count} positional arguments of "
                f"{describe_function(fn)}: wanted an int from {-count} to {count - 1}, or a tuple of such"
            )
    positions = tuple(number % count for number in numbers)
    if not positions or len(set(positions)) < len(positions):
        raise TransformError(
            f"{caller}: argnums must name each argument once and at least one, got {argnums!r} for the {count} of "
            f"{describe_function(fn)}"
        )
    return positions[0] if isinstance(argnums, int) else None, positions


def _nothing_to_differentiate(
    caller: str, fn: Callable[..., Any], positions: tuple[int, ...], args: tuple[Tree, ...]
) -> str:
    found = [
        f"{path} is {tree.describe(leaf)}"
        for number in positions
        for path, leaf in zip(argument_paths(number, args[number]), tree.leaves(args[number]), strict=True)
    ]
    seen = "; ".join(found[:3]) or ", ".join(f"argument {number} has no leaves" for number in positions)
    leaves = [leaf for number in positions for leaf in tree.leaves(args[number])]
    if any(isinstance(leaf, nn.Module) for leaf in leaves):
        wanted = "such as the parameters of net = tp.functional(module): net(net.params, x)"
    elif any(map(is_dataclass, leaves)):
        wanted = "or a dataclass that is a tree: see tree.register_dataclass"
    else:
        wanted = "such as torch.tensor(3.0)"
    return (
        f"{caller}: {describe_function(fn)} has nothing to differentiate: {seen}. "
        f"Wanted a floating point or complex tensor, {wanted}"
    )
