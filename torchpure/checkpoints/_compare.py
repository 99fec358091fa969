"""Whether a stored tree is like the user's: paths, containers, shapes and dtypes."""

from typing import Any

import torch
from torch import Tensor

from torchpure.errors import InputError, StructureError

from ._dtypes import STORED, dtype_name
from ._manifest import TENSORS, Leaf
from ._structure import LEAF, Keys, Node, dotted, iterate, name
from ._values import kind_of

_MAX_SHOWN = 5


def check_alike(
    wanted: dict[Keys, Node],
    stored: dict[Keys, Node],
    templates: dict[Keys, Any],
    leaves: dict[Keys, Leaf],
    cast: bool,
    other: str = "`like`",
) -> None:
    """Check the nodes of the user's tree against the stored ones, and the leaves at the same paths.

    With `cast`, floating-point dtypes may differ. `other` is the name of the user's tree in messages.

    Raises:
        StructureError: a path is missing, unexpected or another container.
        InputError: a leaf has another shape, dtype or kind.
    """
    paths = [*wanted, *(path for path in stored if path not in wanted)]
    found = [_difference(path, wanted, stored) for path in paths]
    _refuse(StructureError, f"its tree differs from {other}", [text for text in found if text])
    found = [_mismatch(path, templates[path], leaves[path], cast) for path in templates]
    _refuse(InputError, f"its leaves differ from those of {other}", [text for text in found if text])


def _refuse(kind: type[Exception], what: str, found: list[str]) -> None:
    if found:
        more = f"; and {len(found) - _MAX_SHOWN} more" if len(found) > _MAX_SHOWN else ""
        raise kind(f"{what}: {'; '.join(found[:_MAX_SHOWN])}{more}")


def _difference(path: Keys, wanted: dict[Keys, Node], stored: dict[Keys, Node]) -> str | None:
    parent, names = path[:-1], [name(nodes[path]) if path in nodes else "nothing" for nodes in (wanted, stored)]
    # what a missing container holds is not listed
    if names[0] == names[1] or (path and "nothing" in names and (parent in wanted) != (parent in stored)):
        return None
    return f"`{dotted(path)}`: wanted {names[0]}, got {names[1]}"


def _mismatch(path: Keys, template: Any, leaf: Leaf, cast: bool) -> str | None:
    wanted, got = _describe(template), _describe_stored(leaf)
    if wanted == got:
        return None
    if cast and isinstance(leaf, TENSORS) and wanted[1:] == got[1:]:
        both = (getattr(template, "dtype", None), STORED[leaf.dtype].dtype)
        if all(isinstance(dtype, torch.dtype) and dtype.is_floating_point for dtype in both):
            return None
    return f"`{dotted(path)}`: wanted {_words(wanted)}, got {_words(got)}"


def _describe(template: Any) -> tuple[Any, ...]:
    dtype = getattr(template, "dtype", None)
    if isinstance(template, Tensor) or isinstance(dtype, torch.dtype):  # or a ShapeDtype
        return dtype_name(template.dtype), tuple(template.shape)
    return (kind_of(template) or type(template).__name__,)


def _describe_stored(leaf: Leaf) -> tuple[Any, ...]:
    if isinstance(leaf, TENSORS):
        return leaf.dtype, leaf.shape
    return (kind_of(leaf.value),)


def _words(found: tuple[Any, ...]) -> str:
    return f"{found[0]} of shape {found[1]}" if len(found) == 2 else str(found[0])


def nodes_by_path(node: Node) -> dict[Keys, Node]:
    """Return each node of a structure by its path."""
    return dict(iterate(node))


def leaves_by_path(nodes: dict[Keys, Node], leaves: tuple[Any, ...]) -> dict[Keys, Any]:
    """Return each leaf by its path, from the leaves in order."""
    return dict(zip([path for path, node in nodes.items() if node == LEAF], leaves, strict=True))
