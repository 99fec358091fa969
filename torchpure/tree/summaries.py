"""Summarise trees in a few lines, for `repr`."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from torchpure._torch import functorch
from torchpure._types import Tree

from ._core import describe, leaves, paths
from ._plain import plain

WIDTH = 120


def summary(tree: Tree, most: int = 6) -> list[str]:
    """Return one line of totals, and then at most `most` lines with the shapes of the leaves.

    >>> import torch
    >>> summary({"w": torch.zeros(2, 3), "b": torch.zeros(3)})
    ['9 numbers in 2 tensors, float32', '  w (2, 3)', '  b (3,)']
    """
    named = list(zip(paths(tree), leaves(tree), strict=True))
    dtypes = _dtypes(leaf for _, leaf in named)
    lines = [f"  {path} {_shape(leaf, with_dtype=len(dtypes) > 1)}" for path, leaf in named]
    return [totals(tree), *shortened(lines, most)]


def totals(tree: Tree) -> str:
    """Describe the number of entries and tensors of a tree, with dtypes and devices.

    >>> import torch
    >>> totals((torch.zeros(2), torch.zeros(3, dtype=torch.int64)))
    '5 numbers in 2 tensors, float32 and int64'
    """
    tensors = [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]
    if not tensors:
        return "no tensors"
    dtypes, devices = " and ".join(_dtypes(tensors)), sorted({str(leaf.device) for leaf in tensors} - {"cpu"})
    where = f" on {' and '.join(devices)}" if devices else ""
    numbers = counted(sum(leaf.numel() for leaf in tensors), "number")
    return f"{numbers} in {counted(len(tensors), 'tensor')}, {dtypes}{where}"


def counted(number: int, noun: str) -> str:
    """Write a number and its noun: `1 tensor`, `1,024 tensors`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def shortened(lines: Sequence[str], most: int) -> list[str]:
    """Return at most `most` lines of at most 120 characters; the last line counts the lines left out."""
    kept = [line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines]
    return kept if len(kept) <= most else [*kept[: most - 1], f"  … {len(kept) - most + 1:,} more"]


def shown(leaf: Any) -> str:
    """Show a number; for a tensor of many entries, on a device or under a transform, show dtype and shape."""
    if not isinstance(leaf, Tensor):
        return f"{leaf:.4g}" if isinstance(leaf, float) else f"{leaf!r:.40}"
    detached = leaf.detach()
    readable = leaf.device.type == "cpu" and not functorch.is_functorch_wrapped_tensor(leaf)
    if leaf.numel() == 1 and readable and plain([detached]):
        return f"{detached.item():.4g}"
    return describe(leaf)


def _dtypes(leaves_found: Iterable[Any]) -> list[str]:
    return sorted({str(leaf.dtype).removeprefix("torch.") for leaf in leaves_found if isinstance(leaf, Tensor)})


def _shape(leaf: Any, *, with_dtype: bool) -> str:
    if not isinstance(leaf, Tensor):
        return describe(leaf)
    return f"{tuple(leaf.shape)}" + (f" {str(leaf.dtype).removeprefix('torch.')}" if with_dtype else "")
