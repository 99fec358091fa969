"""One round of messages among the processes of a group: each learns what all others are about to do.

gloo ends the process, or mixes up numbers, where sizes or kinds of collectives differ. So each collective begins with a
round of fixed size. A message has a digest and a text of what its process does, and the data if they are small. Where
digests differ, every process knows what each of them does, and raises.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torchpure._torch import get_default_store
from torchpure.errors import MeshError

_DIGEST, _TEXT = 16, 240
_HEADER = _DIGEST + _TEXT
_FAILED = b"F" * 8
_MAX_ROOM, _ROOM_OF_GROUP = 4096, 65536  # bytes of data in a message, and in all messages of a round
_REPORT_SECONDS = 2.0  # how long a failed process waits for the reports of others
_ANNOUNCE_SECONDS = 5.0  # how long a failed process waits for others to hear of it


class Group:
    """The processes along one axis of a mesh, and how many rounds they have had."""

    __slots__ = ("broken", "group", "heard", "label", "rank", "ranks", "room", "rounds", "size", "timeout")

    def __init__(self, group: Any, label: str, timeout: timedelta | None = None) -> None:
        self.group, self.label = group, label
        self.timeout = timeout  # of its collectives; None for that of torch
        self.ranks = dist.get_process_group_ranks(group)  # numbers of the processes in the whole program
        self.rank, self.size = dist.get_rank(group), len(self.ranks)
        self.room = min(_MAX_ROOM, _ROOM_OF_GROUP // self.size)
        self.rounds, self.broken = 0, ""
        self.heard = ""  # the error of the last round, which every process of the group has raised


@lru_cache(maxsize=4096)
def _digest_of(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()


def round_of(group: Group, text: str, data: Tensor | None = None) -> Tensor:
    """Tell the others what this process does, and return the data of all: uint8, shape (processes, bytes).

    Raises:
        MeshError: the processes do not all do the same, one has failed or ended, or did not come in time.
    """
    message = _message(group, _digest_of(text), text, data)
    received = torch.empty(group.size, len(message), dtype=torch.uint8)
    run_work(group, text, lambda: group.group.allgather([list(received.unbind(0))], [message]))
    if not torch.equal(received[:, :_DIGEST], message[:_DIGEST].expand(group.size, _DIGEST)):
        raise heard_by_all(group, _disagreement(group, text, received))
    return received[:, _HEADER:]


def heard_by_all(group: Group, text: str) -> MeshError:
    """Return an error that every process of the group raises after the same round."""
    group.heard = text
    return MeshError(text)


def _message(group: Group, digest: bytes, text: str, data: Tensor | None) -> Tensor:
    group.rounds += 1
    header = digest + group.rounds.to_bytes(8, "little") + text.encode()[:_TEXT].ljust(_TEXT, b"\0")
    message = torch.empty(_HEADER + group.room, dtype=torch.uint8)
    message[:_HEADER] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
    if data is not None:
        message[_HEADER : _HEADER + len(data)] = data
    return message


def run_work(group: Group, text: str, start: Any) -> None:
    """Start an exchange of a group, and wait for it.

    Raises:
        MeshError: a process has ended, or did not come in time.
    """
    if group.broken:
        raise MeshError(
            f"{text} over {group.label}: an earlier collective failed, {group.broken}: start the program again"
        )
    begun = time.monotonic()
    try:
        start().wait()
    except RuntimeError as error:
        group.broken = text
        raise MeshError(_post_mortem(group, text, error, time.monotonic() - begun)) from error


def _disagreement(group: Group, text: str, received: Tensor) -> str:
    rows = [bytes(row.tolist()) for row in received[:, :_HEADER]]
    texts = [row[_DIGEST:].rstrip(b"\0").decode(errors="replace") for row in rows]
    failed = [number for number, row in enumerate(rows) if row[:8] == _FAILED]
    if failed:
        names = "; ".join(f"rank {group.ranks[number]}: {texts[number]}" for number in failed)
        return f"{text} over {group.label}: another process failed. {names}"
    counts = [int.from_bytes(row[8:_DIGEST], "little") for row in rows]
    same = len(set(texts)) == 1
    names = "; ".join(
        f"rank {rank} runs {what}" + (f" (its collective number {count})" if same else "")
        for rank, what, count in zip(group.ranks, texts, counts, strict=True)
    )
    return (
        f"{text} over {group.label}: the processes disagree. {names}. Each process must call the same collectives in "
        "the same order, with the same shapes and dtypes"
    )


def _post_mortem(group: Group, text: str, error: Exception, waited: float) -> str:
    """Report this failure in the store, and say which processes of the group have reported none, or came late."""
    own = group.ranks[group.rank]
    silent, late = _without_report(group, waited)
    if late and not silent:
        what = f"{_ranks(late)} did not come in time, but later"
    elif silent == [rank for rank in group.ranks if rank != own] and own != 0 and len(silent) > 1:
        what = "no other process answers: rank 0 has ended, or this one is cut off"
    elif silent:
        what = f"{_ranks(silent)} did not come in time: it has ended, or does something else"
    else:
        what = "another process gave up before this one came, or the connection broke"
    reason = str(error).partition("\n")[0].strip()
    return f"{text} over {group.label} failed on rank {own}: {what}. {reason}"


def _without_report(group: Group, waited: float) -> tuple[list[int], list[int]]:
    """Return the ranks that do not report this failure, and those whose collective began later than this one's."""
    key, own = f"torchpure/{group.group.group_name}/{group.rounds}", group.ranks[group.rank]
    silent, late = [rank for rank in group.ranks if rank != own], list[int]()
    try:
        store = get_default_store()
        store.set(f"{key}/{own}", str(waited))
        deadline = time.monotonic() + _REPORT_SECONDS
        while silent and time.monotonic() < deadline:
            for rank in [rank for rank in silent if store.check([f"{key}/{rank}"])]:
                silent.remove(rank)
                if float(store.get(f"{key}/{rank}")) < waited / 2:  # it failed at once: the others had given up
                    late.append(rank)
            time.sleep(0.02)
    except RuntimeError:  # the process with the store has read the reports, and ended
        pass
    return silent, late


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def announce_failure(groups: Sequence[Group], text: str) -> None:
    """Tell all processes of these groups that this one has failed: it takes part in their next round with the text."""
    started = []
    for group in groups:
        if group.broken:
            continue
        message = _message(group, _FAILED, text, None)
        received = torch.empty(group.size, len(message), dtype=torch.uint8)
        try:
            started.append((group, group.group.allgather([list(received.unbind(0))], [message]), received))
        except RuntimeError:
            group.broken = text
    for group, work, _ in started:
        try:
            if not work.wait(timedelta(seconds=_ANNOUNCE_SECONDS)):
                group.broken = text
        except RuntimeError:
            group.broken = text
