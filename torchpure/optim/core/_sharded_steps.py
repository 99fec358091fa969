"""Whole steps over DTensors in few kernels: each process runs the kernel on its parts of parameters and state."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from torchpure import tree
from torchpure._dtensors import is_dtensor
from torchpure._types import Grads, Params

from ._sharded import complete, complete_placements, distributed, laid_out_like, redistribute, whole

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Placement


def kernel_on_parts(
    kernel: Callable[..., Any] | None, grads: Grads, state: Any, params: Params
) -> tuple[Params, Any] | None:
    """Run the kernel of a step on the parts that the state has; None if it does not apply.

    The parameters are split like their state (ZeRO-1), or more; the new ones are gathered where they were whole.
    """
    if kernel is None or getattr(state, "_fields", ("",))[0] != "step":
        return None
    leaves, structure = tree.flatten(params)
    moments = [part for part in state[1:] if part is not None]
    g, *columns = (tree.align(structure, params, part, "step") for part in (grads, *moments))
    every = [*leaves, *g, *(leaf for column in columns for leaf in column)]
    if not all(isinstance(leaf, Tensor) for leaf in every) or (
        torch.is_grad_enabled() and any(leaf.requires_grad for leaf in every)
    ):
        return None
    found = [_layout_of(row) for row in zip(leaves, *columns, strict=True)]
    layouts = [layout for layout in found if layout is not None]
    if len(layouts) < len(found):
        return None

    def parts(column: Sequence[Tensor]) -> Any:
        return tree.unflatten(structure, [at.part(leaf) for at, leaf in zip(layouts, column, strict=True)])

    with torch.no_grad():  # no gradient is wanted, and DTensors hand out their parts in less time
        local_state = iter([parts(column) for column in columns])
        fields = [None if part is None else next(local_state) for part in state[1:]]
        made = kernel(parts(g), type(state)(complete(state.step), *fields), parts(leaves))
        return None if made is None else _joined(made, state, params, columns, layouts)


class _Layout(NamedTuple):
    """How a parameter and its state lie on processes during a step."""

    mesh: "DeviceMesh | None"  # None: every process has all of both
    placements: "tuple[Placement, ...]"
    split: tuple[int, int, int] | None = None  # (dimension, parts, part of this process) if one axis splits one

    def part(self, leaf: Tensor) -> Tensor:
        """Return the part of this process; a gradient that is still to be summed is reduced and scattered."""
        if self.mesh is None:
            return whole(leaf)
        if is_dtensor(leaf) and leaf.placements == self.placements and leaf.device_mesh == self.mesh:
            return leaf.to_local()
        dim = self.gathered_dim(leaf)
        if dim is not None and self.split is not None:  # the general way below takes ten times as long
            _, count, place = self.split
            size = leaf.shape[dim] // count
            part = complete(leaf).narrow(dim, place * size, size)
            return part.clone(memory_format=torch.contiguous_format)  # a donating kernel writes into it
        return redistribute(distributed(leaf, self.mesh), self.mesh, self.placements).to_local()

    def joined(self, part: Tensor, like: Tensor) -> Tensor:
        """Return the tensor of all parts, which lies on processes in this way; `like` has its shape."""
        from torch.distributed.tensor import DTensor

        if self.mesh is None:
            return part
        if type(like) is DTensor and like.placements == self.placements and like.device_mesh == self.mesh:
            old = like.to_local()
            if (part.dtype, part.shape, part.stride()) == (old.dtype, old.shape, old.stride()) and tree.plain([part]):
                return _of_other_part(like, part)
        return DTensor.from_local(
            part, self.mesh, self.placements, run_check=False, shape=like.shape, stride=like.stride()
        )

    def gathered_dim(self, like: Tensor) -> int | None:
        """Return the dimension that one axis splits into equal parts here, if every process keeps all of `like`."""
        if self.split is None or like.shape[self.split[0]] % self.split[1]:
            return None
        return None if is_dtensor(like) and not like.placements[0].is_replicate() else self.split[0]


def _of_other_part(like: "DTensor", part: Tensor) -> "DTensor":
    """Return the DTensor of another part of this process, laid out as `like`; for tensors without a derivative.

    `DTensor.from_local` works the layout out again, in an autograd function: it takes ten times as long.
    """
    layout: Any = copy(like._spec)  # torch may complete a layout later: no two tensors share one
    make: Any = type(like)
    return make(part, layout, requires_grad=False)


def _layout_of(row: Sequence[Tensor]) -> "_Layout | None":
    """Return the layout of a parameter's state, or of the parameter if it has no state; None if they differ."""
    found = {(leaf.device_mesh, tuple(leaf.placements)) if is_dtensor(leaf) else None for leaf in row[1:] or row}
    if len(found) > 1:
        return None
    layout = found.pop()
    if layout is None:
        return None if is_dtensor(row[0]) else _Layout(None, ())
    mesh, placements = layout
    placements = complete_placements(placements)
    return _Layout(mesh, placements, _split_of(mesh, placements))


def _split_of(mesh: "DeviceMesh", placements: "tuple[Placement, ...]") -> tuple[int, int, int] | None:
    from torch.distributed.tensor import Shard

    at = placements[0] if mesh.ndim == 1 else None
    return (at.dim, mesh.size(), mesh.get_local_rank()) if isinstance(at, Shard) else None


def _joined(
    made: tuple[Params, Any], state: Any, params: Params, columns: Sequence[Sequence[Tensor]], layouts: list[_Layout]
) -> tuple[Params, Any]:
    """Return new parameters and state as DTensors, from the parts that the kernel made, in place of old `columns`."""
    leaves, structure = tree.flatten(params)
    new, new_state = tree.leaves(made[0]), made[1]
    rest = iter(columns)
    fields = [
        None
        if part is None
        else tree.unflatten(
            structure, [at.joined(*row) for at, *row in zip(layouts, tree.leaves(part), next(rest), strict=True)]
        )
        for part in new_state[1:]
    ]
    moved = tree.unflatten(structure, _gathered(new, layouts, leaves))
    return laid_out_like(params, moved), type(state)(laid_out_like(state.step, new_state.step), *fields)


def _gathered(parts: list[Tensor], layouts: list[_Layout], likes: list[Tensor]) -> list[Tensor]:
    """Return the parameters of all parts; those that become whole travel together, one message for each dtype."""
    found = list(parts)
    groups: dict[tuple[Any, torch.dtype], list[int]] = defaultdict(list)
    for number, (at, part, like) in enumerate(zip(layouts, parts, likes, strict=True)):
        if at.gathered_dim(like) is not None:
            groups[at.mesh, part.dtype].append(number)
        else:
            found[number] = at.joined(part, like)
    for (mesh, _), numbers in groups.items():
        flat = torch.cat([parts[number].reshape(-1) for number in numbers])
        rows = flat.new_empty(mesh.size(), flat.numel())
        dist.all_gather_single(rows.view(-1), flat, group=mesh.get_group())
        for number, row in zip(numbers, rows.split([parts[number].numel() for number in numbers], 1), strict=True):
            dim = layouts[number].gathered_dim(likes[number])
            stacked = row.reshape(mesh.size(), *parts[number].shape)
            joined = stacked.movedim(0, dim or 0).reshape(likes[number].shape)
            found[number] = distributed(joined, mesh) if is_dtensor(likes[number]) else joined
    return found
