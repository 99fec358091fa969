"""How a tensor is laid out on a mesh: which axes of the mesh split which of its dimensions."""

from collections.abc import Iterator
from typing import Any

from torchpure.errors import TransformError


class PartitionSpec:
    """The layout of a tensor, `tp.P` for short: for each dimension the name of a mesh axis, a tuple of names, or None.

    Dimensions that are left out are not split. On an axis that is not named, every process has the same values.

    Raises:
        TransformError: an entry is something else, or an axis is named twice.

    >>> PartitionSpec("data", None, ("model", "expert"))
    P('data', None, ('model', 'expert'))
    """

    __slots__ = ("_axis_names", "_by_dim", "_entries")

    def __init__(self, *entries: str | tuple[str, ...] | None) -> None:
        """Take one entry a dimension."""
        self._entries = tuple(tuple(entry) if isinstance(entry, list) else entry for entry in entries)
        self._by_dim = tuple(
            () if entry is None else entry if isinstance(entry, tuple) else (entry,) for entry in self._entries
        )
        for entry in self._entries:
            names = entry if isinstance(entry, tuple) else (entry,)
            if entry is not None and not all(isinstance(name, str) for name in names):
                raise TransformError(f"P: wanted the name of an axis, a tuple of names or None, got {entry!r}")
        self._axis_names = tuple(name for names in self._by_dim for name in names)
        if len(set(self.axis_names)) < len(self.axis_names):
            raise TransformError(f"P: an axis is named twice in {self!r}: it can split one dimension only")

    @property
    def axis_names(self) -> tuple[str, ...]:
        """The axes that split a dimension."""
        return self._axis_names

    def by_dim(self) -> tuple[tuple[str, ...], ...]:
        """List the axes that split each dimension, the slowest first."""
        return self._by_dim

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the entries."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def __getitem__(self, position: int) -> Any:
        """Return an entry."""
        return self._entries[position]

    def __eq__(self, other: object) -> bool:
        """Compare entries."""
        return isinstance(other, PartitionSpec) and self._entries == other._entries

    def __hash__(self) -> int:
        """Hash the entries."""
        return hash(self._entries)

    def __repr__(self) -> str:
        """Show the call that makes it."""
        return f"P({', '.join(map(repr, self._entries))})"


P = PartitionSpec
