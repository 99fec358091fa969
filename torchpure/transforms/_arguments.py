"""Which leaves of which arguments a derivative is taken for, and how its tree is put together again.

Every derivative splits its arguments the same way: the floating point and complex tensors among the chosen arguments
are variables; None, integers, numbers and strings pass through, and their place in the result holds None.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

from ._describe import argument_paths, describe_function

Argnums = int | Sequence[int]


class Variables:
    """The leaves that a derivative is taken for; immutable after its construction."""

    __slots__ = ("_argnums", "_args", "_leaves", "_single", "_slots", "_structures", "leaves")

    def __init__(self, who: str, fn: Callable[..., Any], argnums: Argnums, args: tuple[Tree, ...]) -> None:
        self._single = isinstance(argnums, int)
        self._argnums = _positions(who, fn, argnums, len(args))
        self._args = args
        flat = [tree.flatten(args[number]) for number in self._argnums]
        self._leaves = [leaves for leaves, _ in flat]
        self._structures = [structure for _, structure in flat]
        self._slots = [[is_variable(leaf) for leaf in leaves] for leaves in self._leaves]
        self.leaves: list[Tensor] = [
            leaf
            for leaves, slots in zip(self._leaves, self._slots, strict=True)
            for leaf, chosen in zip(leaves, slots, strict=True)
            if chosen
        ]
        if not self.leaves:
            raise TransformError(_nothing_to_differentiate(who, fn, self._argnums, args))

    def arguments(self, values: Iterable[Tensor]) -> list[Tree]:
        """Put values in the place of the variables and return all arguments."""
        remaining = iter(values)
        args = list(self._args)
        for number, leaves, slots, structure in self._parts():
            filled = [next(remaining) if chosen else leaf for leaf, chosen in zip(leaves, slots, strict=True)]
            args[number] = tree.unflatten(structure, filled)
        return args

    def result(self, values: Iterable[Any]) -> Tree:
        """Arrange one value a variable as the chosen arguments are, with None for every other leaf."""
        remaining = iter(values)
        trees = tuple(
            tree.unflatten(structure, [next(remaining) if chosen else None for chosen in slots])
            for _, _, slots, structure in self._parts()
        )
        return trees[0] if self._single else trees

    def match(self, who: str, other: Tree) -> list[Any]:
        """List what a tree shaped like the chosen arguments holds at the variables."""
        others = (other,) if self._single else tuple(other)
        values = []
        for part, (number, _, slots, structure) in zip(others, self._parts(), strict=True):
            column = tree.align(structure, self._args[number], part, who)
            values += [value for value, chosen in zip(column, slots, strict=True) if chosen]
        return values

    def _parts(self) -> Iterable[tuple[int, list[Any], list[bool], Any]]:
        return zip(self._argnums, self._leaves, self._slots, self._structures, strict=True)


def is_variable(leaf: Any) -> bool:
    """Tell whether a derivative with respect to this leaf exists."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def _positions(who: str, fn: Callable[..., Any], argnums: Argnums, count: int) -> tuple[int, ...]:
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or not -count <= number < count:
            raise TransformError(
                f"{who}: argnums={argnums!r} does not fit the {count} positional arguments of {describe_function(fn)}"
            )
    positions = tuple(number % count for number in numbers)
    if not positions or len(set(positions)) < len(positions):
        raise TransformError(f"{who}: argnums must name each argument once and at least one, got {argnums!r}")
    return positions


def _nothing_to_differentiate(
    who: str, fn: Callable[..., Any], positions: tuple[int, ...], args: tuple[Tree, ...]
) -> str:
    found = [
        f"{path} is {tree.describe(leaf)}"
        for number in positions
        for path, leaf in zip(argument_paths(number, args[number]), tree.leaves(args[number]), strict=True)
    ]
    seen = "; ".join(found[:3]) or ", ".join(f"argument {number} has no leaves" for number in positions)
    return (
        f"{who}: {describe_function(fn)} has nothing to differentiate: {seen}. "
        "Wanted a floating point or complex tensor, such as torch.tensor(3.0)"
    )
