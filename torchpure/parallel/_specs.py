"""Spread a tree of partition specs over the leaves of a value."""

from typing import Any

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

from ._partition_spec import PartitionSpec


def spread(caller: str, specs: Any, value: Tree, place: str) -> list[PartitionSpec]:
    """Return the spec of each leaf of `value`, from a prefix tree of specs.

    Raises:
        TransformError: the tree of specs is no prefix of the value.
    """
    if isinstance(specs, PartitionSpec):
        return [specs] * len(tree.leaves(value))
    wanted, got = tree.children(value), tree.children(specs)
    if wanted is None or got is None or wanted.keys() != got.keys():
        raise TransformError(
            f"{caller}: {place} must be a P, or shaped like the value that it is for, {tree.describe(value)}; "
            f"got {specs!r}"
        )
    return [spec for name in wanted for spec in spread(caller, got[name], wanted[name], f"{place}.{name}")]


def spread_arguments(caller: str, in_specs: Any, args: tuple[Tree, ...]) -> list[PartitionSpec]:
    """Return the spec of each leaf of the arguments.

    Raises:
        TransformError: there is no spec for each argument.
    """
    if isinstance(in_specs, PartitionSpec):
        in_specs = (in_specs,) * len(args)
    if not isinstance(in_specs, tuple | list) or len(in_specs) != len(args):
        raise TransformError(
            f"{caller}: in_specs={in_specs!r} does not fit {len(args)} arguments: wanted a P, or a tuple with an entry "
            "for each argument"
        )
    pairs = enumerate(zip(in_specs, args, strict=True))
    return [spec for i, (specs, arg) in pairs for spec in spread(caller, specs, arg, f"in_specs[{i}]")]
