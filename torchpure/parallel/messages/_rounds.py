"""One round of messages among the processes of a group: each learns what all others are about to do.

gloo ends the process, or mixes up numbers, where sizes or kinds of collectives differ. So each collective begins with a
round, whose size all processes know before it. A message has a digest and a text of what its process does, and the data
if they fit. Where digests differ, every process knows what each of them does, and raises.

Programs repeat themselves. So a round has room for the data of the collective that came after the last one before. All
processes have agreed on the rounds before, so they make room for the same. Then one round does the work of two.
"""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torchpure._torch import get_default_store
from torchpure.errors import MeshError

from ._transport import begin_exchange

_DIGEST, _TEXT = 16, 240
_HEADER = _DIGEST + _TEXT
_FAILED = b"F" * 8
_MAX_ROOM, _ROOM_OF_GROUP = 4096, 65536  # bytes of data in a message, and in all messages of a round
_MAX_EXPECTED = 2**21  # bytes of expected data, times the square of the number of processes: a round sends all to all
_MAX_PLACES = 4096  # how many places of programs a group remembers
_UNIT = 16  # bytes: the data of each message begin where a number of any dtype may
_REPORT_SECONDS = 2.0  # how long a failed process waits for the reports of others
_ANNOUNCE_SECONDS = 5.0  # how long a failed process waits for others to hear of it


class Group:
    """The processes along one axis of a mesh, and how many rounds they have had."""

    __slots__ = (
        "broken",
        "expected",
        "group",
        "heard",
        "label",
        "last",
        "rank",
        "ranks",
        "room",
        "rounds",
        "size",
        "timeout",
    )

    def __init__(self, group: Any, label: str, timeout: timedelta | None = None) -> None:
        self.group, self.label = group, label
        self.timeout = timeout  # of its collectives; None for that of torch
        self.ranks = dist.get_process_group_ranks(group)  # numbers of the processes in the whole program
        self.rank, self.size = dist.get_rank(group), len(self.ranks)
        self.room = min(_MAX_ROOM, _ROOM_OF_GROUP // self.size // _UNIT * _UNIT)
        self.rounds, self.broken = 0, ""
        self.heard = ""  # the error of the last round, which every process of the group has raised
        # both are equal on all processes, because only rounds in which all agree change them
        self.last = b""  # the digest of the last round in which all agreed; empty after an error
        self.expected: dict[bytes, int] = {}  # digest of a round -> bytes of data in the next one, if they are many

    def next_room(self) -> int:
        """Return the bytes of data for which the next round has room."""
        return max(self.room, self.expected.get(self.last, 0))

    def agreed(self, digest: bytes, size: int) -> None:
        """Take note of a round in which all agreed, for a collective of so many bytes; 0 if they travel apart."""
        if size <= self.room or size * self.size**2 > _MAX_EXPECTED:
            self.expected.pop(self.last, None)
        else:
            if len(self.expected) >= _MAX_PLACES:
                self.expected.clear()
            self.expected[self.last] = -(-size // _UNIT) * _UNIT
        self.last = digest


@lru_cache(maxsize=4096)
def _digest_of(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()


def round_of(group: Group, text: str, data: Tensor | None = None) -> Tensor:
    """Tell the others what this process does, and return the data of all: uint8, shape (processes, bytes).

    If there are fewer bytes than in `data`, the data did not fit. It is so on all processes, or on none.

    Raises:
        MeshError: the processes do not all do the same, one has failed or ended, or did not come in time.
    """
    digest = _digest_of(text)
    received = _new_messages(group, digest, text, data)
    run_work(group, text, lambda: begin_exchange(group.group, group.rank, received), group.timeout)
    digests = received[:, :_DIGEST]
    if not torch.equal(digests, digests[group.rank].expand(group.size, _DIGEST)):
        raise heard_by_all(group, _disagreement(group, text, received))
    group.agreed(digest, 0 if data is None else len(data))
    return received[:, _HEADER:]


def heard_by_all(group: Group, text: str) -> MeshError:
    """Return an error that every process of the group raises after the same round."""
    group.heard, group.last = text, b""
    return MeshError(text)


def _new_messages(group: Group, digest: bytes, text: str, data: Tensor | None) -> Tensor:
    """Return memory for the messages of all processes in the next round; that of this process is written."""
    group.rounds += 1
    header = digest + group.rounds.to_bytes(8, "little") + text.encode()[:_TEXT].ljust(_TEXT, b"\0")
    messages = torch.empty(group.size, _HEADER + group.next_room(), dtype=torch.uint8)
    own = messages[group.rank]
    own[:_HEADER] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
    if data is not None and len(data) <= len(own) - _HEADER:
        own[_HEADER : _HEADER + len(data)] = data
    return messages


def run_work(
    group: Group, text: str, start: Callable[[], Sequence[dist.Work]], timeout: timedelta | None = None
) -> None:
    """Start the works of an exchange, and wait for them: as long as torch's own limit says, or `timeout`.

    Raises:
        MeshError: a process has ended, or did not come in time.
    """
    if group.broken:
        raise MeshError(
            f"{text} over {group.label}: an earlier collective failed, {group.broken}: start the program again"
        )
    begun = time.monotonic()
    try:
        for work in start():
            work.wait() if timeout is None else work.wait(timeout)
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
    silent, late, failed = _reports(group, waited)
    if failed:
        return f"{text} over {group.label}: another process failed. {'; '.join(failed)}"
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


def _report(group: Group, what: str) -> None:
    get_default_store().set(f"{_key_of(group)}/{group.ranks[group.rank]}", what)


def _key_of(group: Group) -> str:
    return f"torchpure/{group.group.group_name}/{group.rounds}"


def _reports(group: Group, waited: float) -> tuple[list[int], list[int], list[str]]:
    """Return the ranks without a report of this round, those that began it later than this one, and what failed."""
    key, own = _key_of(group), group.ranks[group.rank]
    silent, late, failed = [rank for rank in group.ranks if rank != own], list[int](), list[str]()
    try:
        store = get_default_store()
        _report(group, str(waited))
        deadline = time.monotonic() + _REPORT_SECONDS
        while silent and not failed and time.monotonic() < deadline:
            for rank in [rank for rank in silent if store.check([f"{key}/{rank}"])]:
                silent.remove(rank)
                found = store.get(f"{key}/{rank}")
                if found.startswith(_FAILED):
                    failed.append(f"rank {rank}: {found.removeprefix(_FAILED).decode(errors='replace')}")
                elif float(found) < waited / 2:  # it failed at once: the others had given up
                    late.append(rank)
            time.sleep(0.02)
    except RuntimeError:  # the process with the store has read the reports, and ended
        pass
    return silent, late, failed


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def announce_failure(groups: Sequence[Group], text: str) -> None:
    """Tell all processes of these groups that this one has failed: it takes part in their next round with the text."""
    started = []
    for group in groups:
        if group.broken:
            continue
        messages = _new_messages(group, _FAILED, text, None)
        group.last = b""
        try:
            _report(group, f"{_FAILED.decode()}{text}")  # for those that come when this process waits no longer
            started.append((group, begin_exchange(group.group, group.rank, messages), messages))
        except RuntimeError:
            group.broken = text
    deadline = time.monotonic() + _ANNOUNCE_SECONDS
    for group, works, _ in started:
        try:
            for work in works:
                work.wait(timedelta(seconds=max(deadline - time.monotonic(), 0.01)))
        except RuntimeError:
            group.broken = text
