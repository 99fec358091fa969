"""The operation `torchpure::collective`: all collectives of a mesh, on plain tensors, in eager code and in programs.

A tracer records it as one node, and a compiled program calls it. It is linear and has no derivative here: the rules are
those of `torchpure.transforms.batching`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from torchpure.errors import MeshError

from .messages import Group, find_group, round_of, run_work

_NAMES = {
    "sum": "psum",
    "gather": "all_gather",
    "scatter_sum": "psum_scatter",
    "permute": "ppermute",
    "exchange": "all_to_all",
}
_library = Library("torchpure", "DEF")
_library.define("collective(Tensor leaf, str kind, str group, int[] sources) -> Tensor")


def collective(leaf: Tensor, kind: str, group: Group, sources: Sequence[int]) -> Tensor:
    """Run a collective, as one operation of torch."""
    return torch.ops.torchpure.collective.default(leaf, kind, group.group.group_name, list(sources))


def _collective(leaf: Tensor, kind: str, name: str, sources: Sequence[int]) -> Tensor:
    group = find_group(name)
    if group is None:
        raise MeshError(f"{_NAMES[kind]}: the group {name!r} of this program is closed: make its mesh again")
    if group.size == 1:
        return _of_one(leaf, kind, sources)
    if leaf.is_complex():
        return torch.view_as_complex(_collective(torch.view_as_real(leaf).contiguous(), kind, name, sources))
    leaf = leaf.contiguous()
    text = f"{_NAMES[kind]} of {str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"
    if sources:
        text += f" from {list(sources)}"
    data = leaf.reshape(-1).view(torch.uint8) if _may_travel(group, kind, leaf) else None
    replies = round_of(group, text, data)
    if data is not None and replies.shape[1] >= len(data):
        rows = replies[:, : len(data)].view(leaf.dtype)
        return _from_all(rows.reshape(group.size, *leaf.shape), kind, group.rank, sources)
    return _SENDERS[kind](group, text, leaf, sources)


def _may_travel(group: Group, kind: str, leaf: Tensor) -> bool:
    """Tell whether a tensor may travel in the round, if it has room.

    A large sum of many processes may not: it would be rounded in another order than without room, so that a program
    would give other bits when it starts again from a checkpoint.
    """
    is_exact = group.size == 2 or kind not in {"sum", "scatter_sum"}
    return leaf.device.type == "cpu" and (is_exact or leaf.nbytes <= group.room)


def _of_one(leaf: Tensor, kind: str, sources: Sequence[int]) -> Tensor:
    """Run a collective of a single process."""
    if kind == "permute" and sources[0] < 0:
        return torch.zeros_like(leaf)
    return leaf.unsqueeze(0).clone() if kind == "gather" else leaf[0].clone() if kind == "scatter_sum" else leaf.clone()


def _from_all(rows: Tensor, kind: str, rank: int, sources: Sequence[int]) -> Tensor:
    """Compute the result from the tensors of all processes, in the same order on each of them."""
    if kind == "gather":
        return rows.clone()
    if kind == "permute":
        return rows[sources[rank]].clone() if sources[rank] >= 0 else torch.zeros_like(rows[0])
    if kind == "exchange":
        return rows[:, rank].clone()
    parts = rows if kind == "sum" else rows[:, rank]
    return parts[0] + parts[1] if len(parts) == 2 and parts.is_floating_point() else parts.sum(0)


def _send_sum(group: Group, text: str, leaf: Tensor, _: Any) -> Tensor:
    total = leaf.clone()
    run_work(group, text, lambda: [group.group.allreduce([total])])
    return total


def _send_gather(group: Group, text: str, leaf: Tensor, _: Any) -> Tensor:
    rows = leaf.new_empty(group.size, *leaf.shape)
    run_work(
        group, text, lambda: [group.group.allgather([list(_bytes(rows, group.size).unbind(0))], [_bytes(leaf)[0]])]
    )
    return rows


def _send_exchange(group: Group, text: str, leaf: Tensor, _: Any) -> Tensor:
    received = torch.empty_like(leaf)
    run_work(group, text, lambda: [group.group.alltoall_base(_bytes(received)[0], _bytes(leaf)[0], [], [])])
    return received


def _send_scatter_sum(group: Group, text: str, leaf: Tensor, _: Any) -> Tensor:
    return _send_exchange(group, text, leaf, _).sum(0)


def _send_permute(group: Group, text: str, leaf: Tensor, sources: Sequence[int]) -> Tensor:
    source, received, sent = sources[group.rank], torch.zeros_like(leaf), _bytes(leaf)[0]
    targets = [leaf.nbytes * (source == group.rank) for source in sources]
    counts = [leaf.nbytes * (number == source) for number in range(group.size)]
    run_work(
        group,
        text,
        lambda: [group.group.alltoall_base(_bytes(received)[0, : sum(counts)], sent[: sum(targets)], counts, targets)],
    )
    return received


def _bytes(leaf: Tensor, rows: int = 1) -> Tensor:
    return leaf.view(-1).view(torch.uint8).view(rows, -1)


_SENDERS = {
    "sum": _send_sum,
    "gather": _send_gather,
    "exchange": _send_exchange,
    "scatter_sum": _send_scatter_sum,
    "permute": _send_permute,
}


def _shape_only(leaf: Tensor, kind: str, name: str, sources: Sequence[int]) -> Tensor:
    shape = list(leaf.shape)
    if kind == "gather":
        group = find_group(name)
        assert group is not None, "a program is traced after its group is seen"
        shape = [group.size, *shape]
    if kind == "scatter_sum":
        shape = shape[1:]
    return leaf.new_empty(shape)


_library.impl("collective", _collective, "CompositeExplicitAutograd")
torch.library.register_fake("torchpure::collective", _shape_only, lib=_library)
