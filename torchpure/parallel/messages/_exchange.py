"""Bytes and failures between processes, for work that is no collective of tensors, such as the save of a file."""

import json
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from torchpure._torch import disable_current_modes
from torchpure._types import T
from torchpure.transforms.engine import without_function_modes

from ._rounds import Group, announce_failure, heard_by_all, round_of, run_work


def gather_bytes(group: Group, text: str, data: bytes) -> list[bytes]:
    """Return the bytes of each process, by rank; they may differ in length.

    Raises:
        MeshError: the processes do different things, one has failed or ended, or did not come in time.
    """
    if group.size == 1:
        return [data]
    length = torch.tensor([len(data)]).view(torch.uint8)
    counts = round_of(group, text, length)[:, :8].contiguous().view(torch.int64).flatten().tolist()
    sent = torch.zeros(max(counts), dtype=torch.uint8)
    if data:
        sent[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    received = torch.empty(group.size, len(sent), dtype=torch.uint8)
    if len(sent):
        run_work(group, text, lambda: [group.group.allgather([list(received.unbind(0))], [sent])])
    return [bytes(row[:count].numpy()) for row, count in zip(received, counts, strict=True)]


def agree_on(group: Group, text: str, names: Sequence[str], values: Sequence[str]) -> None:
    """Check that all processes have the same named values.

    Raises:
        MeshError: they do not; the message has the first difference.
    """
    rows = gather_bytes(group, text, json.dumps([list(names), list(values)]).encode())
    other = next((rank for rank, row in enumerate(rows) if row != rows[0]), None)
    if other is None:
        return
    pairs = [dict(zip(*json.loads(row), strict=True)) for row in (rows[0], rows[other])]
    name = next((name for name in {**pairs[0], **pairs[1]} if pairs[0].get(name) != pairs[1].get(name)), "")
    raise heard_by_all(
        group,
        f"{text}: the processes have different values at `{name}`: rank 0 has {pairs[0].get(name, 'nothing')}, rank "
        f"{other} has {pairs[1].get(name, 'nothing')}. Every process must give the same",
    )


def telling(group: Group, run: Callable[[], T]) -> T:
    """Run a function; if it fails, tell the other processes of the group."""
    group.heard = ""
    try:
        return run()
    except BaseException as error:
        if group.size > 1 and not group.heard:
            with disable_current_modes(), without_function_modes():
                announce_failure([group], f"{type(error).__name__}: {error}")
            group.heard = str(error)  # an outer call does not tell it again
        raise


def open_channel(like: Group) -> Group:
    """Make another group of all processes, for a thread of its own; all processes call this at the same place."""
    return Group(dist.new_group(backend="gloo", timeout=like.timeout), like.label, like.timeout)


def close_channel(group: Group) -> None:
    """Close a group that `open_channel` made."""
    if dist.is_initialized():
        dist.destroy_process_group(group.group)
