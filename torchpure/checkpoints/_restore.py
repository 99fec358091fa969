"""Saving and restoring of trees."""

import json
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._dtensors import is_dtensor
from torchpure._types import Tree
from torchpure.errors import CheckpointError, InputError, StructureError

from ._compare import check_alike, leaves_by_path, nodes_by_path
from ._files import checked_path, reported
from ._manifest import TENSORS, Leaf, Manifest
from ._plan import check_outside, make_plan
from ._read import load_manifest, read_leaves
from ._structure import LEAF, Keys, build, dotted, take_apart
from ._write import write_checkpoint, write_together
from .sharded import (
    Box,
    boxes_of,
    distribute,
    has_distributed,
    rank_of_program,
    telling_all,
    together,
    whole,
    whole_group,
)

_ATTEMPTS = 10
PathLike = str | os.PathLike[str]


def save(path: PathLike, tree: Tree, *, metadata: dict[str, Any] | None = None) -> None:
    """Save a tree in a new folder, which appears when everything is on the disk, or not at all.

    Leaves are tensors of any dtype and device, bools, ints, floats, complex numbers, strings, None, dtypes, devices and
    shapes. A tensor is written once for each path, also if several share memory. `metadata` is any JSON object.

    Of a tree with DTensors, all processes call this. Each writes its own parts; what several have is written once.

    Law: `restore(path, like=tree) == tree` after `save(path, tree)`.

    Raises:
        InputError: a leaf, a key or the metadata cannot be stored.
        CheckpointError: the folder exists, or cannot be written. Nothing is left then.
        MeshError: of DTensors, another process cannot write, has ended, or saves another tree.
        TransformError: called inside a transform.

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "model"
    >>> save(path, {"w": torch.ones(2), "step": 3}, metadata={"data": "digits"})
    >>> restore(path)
    {'w': tensor([1., 1.]), 'step': 3}
    """
    if has_distributed(tree):
        telling_all(lambda: _save_together(path, tree, metadata))
        return
    write_checkpoint(checked_path(path, "save"), make_plan(tree, "save"), checked_metadata(metadata, "save"), "save")


def _save_together(path: PathLike, tree: Tree, metadata: dict[str, Any] | None) -> None:
    plan, extra = make_plan(tree, "save"), checked_metadata(metadata, "save")
    write_together(checked_path(path, "save"), plan, extra, "save", whole_group(), lambda: None)


def check_restorable(value: Tree, like: Tree, other: str, caller: str) -> None:
    """Check that `restore(path, like=like)` takes a tree after it is saved; `other` is the name of `like` in messages.

    Raises:
        InputError: a leaf cannot be saved, or the trees differ in structure, shapes, dtypes or kinds.
    """
    plan, (node, pairs) = make_plan(value, caller), take_apart(like, caller)
    stored = nodes_by_path(plan.tree)
    try:
        check_alike(nodes_by_path(node), stored, dict(pairs), leaves_by_path(stored, plan.leaves), False, other)
    except (StructureError, InputError) as error:
        raise InputError(f"{caller}: {error}") from None


def checked_metadata(metadata: dict[str, Any] | None, caller: str) -> dict[str, Any]:
    """Return metadata as JSON reads it.

    Raises:
        InputError: it is no JSON object.
    """
    if not isinstance(metadata, dict | None):
        raise InputError(f"{caller}: metadata: wanted a dict, got {metadata!r:.60}")
    try:
        return json.loads(json.dumps(metadata or {}, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{caller}: metadata: wanted strings, finite numbers, lists and dicts: {error}") from None


def restore(
    path: PathLike,
    like: Tree = None,
    *,
    only: str | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tree:
    """Restore a tree from a checkpoint, or from the newest in the folder of a `Checkpointer`.

    Every file is checked against its BLAKE3 hash before a tensor is made. With `like`, the result has its containers,
    and paths, shapes and dtypes must agree; values of its leaves are not read: meta tensors and `ShapeDtype`s serve.
    Without it, NamedTuples and registered classes come back as dicts by field. Tensors have memory of their own, do not
    require grad, and lie on the devices of `like`, else on the CPU. A DTensor of `like` comes back as a DTensor of the
    same placements, however the tensor was saved; all processes call this then, and each reads the files it needs.

    `only` is a pattern of paths, such as `"encoder.*"` or `"encoder/*"`: the other leaves are those of `like`. `dtype`
    converts floating-point tensors, `device` moves all but DTensors, which stay on the devices of their mesh.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
        StructureError: paths or containers differ from `like`; at most five are shown.
        InputError: shapes, dtypes or kinds differ from `like`, or `only` has no `like` or no match.
        MeshError: of DTensors, another process cannot read, has ended, or reads another checkpoint.
        TransformError: called inside a transform.

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "model"
    >>> save(path, {"w": torch.ones(2)})
    >>> restore(path, like={"v": torch.zeros(2)})
    Traceback (most recent call last):
    torchpure.errors.StructureError: restore: ...: its tree differs from `like`: `v`: wanted leaf, got nothing; `w`: ...
    """
    check_outside("restore")
    place = checked_path(path, "restore")
    if not has_distributed(like):
        return _restore(place, like, only, dtype, device)[1]
    found = together("restore", lambda: _restore(place, like, only, dtype, device), lambda found: f"of {found[0].name}")
    return found[1]


def _restore(place: Path, like: Tree, only: str | None, dtype: torch.dtype | None, device: Any) -> tuple[Path, Tree]:
    """Return the folder of the checkpoint, and its tree."""
    for attempt in range(_ATTEMPTS):
        folder, manifest = load_manifest(place, "restore")
        try:
            if like is None:
                return folder, _plain(folder, manifest, only, dtype, device)
            return folder, _alike(folder, manifest, like, only, dtype, device)
        except (StructureError, InputError) as error:
            raise type(error)(f"restore: {folder}: {error}") from None
        except CheckpointError:
            # if the newest of a run is gone, its writer has committed newer ones and removed it meanwhile
            if os.path.lexists(folder) or folder == place or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _plain(folder: Path, manifest: Manifest, only: str | None, dtype: torch.dtype | None, device: Any) -> Tree:
    if only is not None:
        raise InputError(f"only={only!r} needs `like`, from which the other leaves are taken")
    values = _read(folder, manifest, [_wanted(leaf, None) for leaf in manifest.leaves])
    return build(manifest.tree, iter([_converted(value, dtype, device or "cpu") for value in values]))


def _alike(folder: Path, manifest: Manifest, like: Tree, only: str | None, dtype: Any, device: Any) -> Tree:
    node, pairs = take_apart(like, "restore: like")
    wanted, stored = nodes_by_path(node), nodes_by_path(manifest.tree)
    templates, leaves = dict(pairs), leaves_by_path(stored, manifest.leaves)
    numbers = {path: number for number, path in enumerate(leaves)}
    if only is None:
        check_alike(wanted, stored, templates, leaves, dtype is not None)
        chosen = templates
    else:
        chosen = _check_chosen(only, templates, leaves, dtype is not None)
    wanted_parts = [_wanted(leaf, chosen[path]) if path in chosen else None for path, leaf in leaves.items()]
    values = _read(folder, manifest, wanted_parts)
    results = [
        _laid_out(values[numbers[path]], template, dtype, device) if path in chosen else template
        for path, template in pairs
    ]
    return tree.unflatten(tree.structure(like), results)


def _check_chosen(only: str, templates: dict[Keys, Any], leaves: dict[Keys, Leaf], cast: bool) -> dict[Keys, Any]:
    """Return the leaves of `like` that match the pattern, checked against the stored ones that match."""
    chosen = {path: leaf for path, leaf in templates.items() if _matches(path, only)}
    stored = {path: leaf for path, leaf in leaves.items() if _matches(path, only)}
    if not chosen and not stored:
        raise InputError(f"only={only!r} matches no path; there are {', '.join(map(dotted, list(leaves)[:5]))}, …")
    check_alike(dict.fromkeys(chosen, LEAF), dict.fromkeys(stored, LEAF), chosen, stored, cast)
    return chosen


def _matches(path: Keys, pattern: str) -> bool:
    return fnmatchcase(dotted(path).replace("/", "."), pattern.replace("/", "."))


def _wanted(leaf: Leaf, template: Any) -> Box:
    """Return the part of a leaf that this process needs: of a DTensor, what it holds."""
    if is_dtensor(template):
        return boxes_of(template)[rank_of_program()]
    return whole(leaf.shape if isinstance(leaf, TENSORS) else ())


def _laid_out(value: Any, template: Any, dtype: torch.dtype | None, device: Any) -> Any:
    if is_dtensor(template):
        return distribute(_converted(value, dtype, template.device_mesh.device_type), template)
    return _converted(value, dtype, device or _device(template))


def _read(folder: Path, manifest: Manifest, wanted: list[Box | None]) -> list[Any]:
    with reported("restore", folder):
        return read_leaves(folder, manifest, wanted)


def _device(template: Any) -> Any:
    return template.device if isinstance(template, Tensor) and not template.is_meta else "cpu"


def _converted(value: Any, dtype: torch.dtype | None, device: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
