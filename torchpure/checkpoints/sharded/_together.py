"""What all processes of a program do together: none commits before all have written, and none waits for a dead one.

`torchpure.parallel` takes long to import, so it is when trees have DTensors.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torchpure._types import T

if TYPE_CHECKING:
    from torchpure.parallel.messages import Group


def is_alone() -> bool:
    """Tell whether there are no other processes to talk to."""
    from torch import distributed

    return not distributed.is_initialized() or distributed.get_world_size() == 1


def together(text: str, run: Callable[[], T], result: Callable[[T], str]) -> T:
    """Run a function on all processes, and return when all have: an error of one is an error of each.

    `result` names what a process has found, on which all must agree.

    Raises:
        MeshError: another process has failed or ended, did not come in time, or has found something else.
    """
    if is_alone():
        return run()

    def run_and_meet() -> T:
        found = run()
        gather(whole_group(), f"end of {text} {result(found)}", b"")
        return found

    return telling(whole_group(), run_and_meet)


def any_process(text: str, flag: bool) -> bool:
    """Tell whether a flag is true on one of the processes; all call this.

    Raises:
        MeshError: another process has failed or ended, did not come in time, or does something else.
    """
    return flag if is_alone() else any(map(any, gather(whole_group(), text, bytes([flag]))))


def whole_group() -> "Group":
    """Return the group of all processes."""
    from torchpure.parallel import messages

    return messages.whole_group()


def open_group(text: str) -> "Group":
    """Make a group of all processes for messages of another thread; all processes call this at the same place."""
    from torchpure.parallel import messages

    messages.gather_bytes(messages.whole_group(), text, b"")  # an error where they do not
    return messages.open_channel(messages.whole_group())


def close_group(group: "Group") -> None:
    """Close a group that `open_group` has made."""
    from torchpure.parallel import messages

    messages.close_channel(group)


def rank_of_program() -> int:
    """Return the number of this process among those of the program, which may have no group yet."""
    from torch import distributed

    return distributed.get_rank() if distributed.is_initialized() else int(os.environ.get("RANK", "0"))


def telling(group: "Group", run: Callable[[], T]) -> T:
    """Run a function; if it fails, tell the other processes of the group."""
    from torchpure.parallel import messages

    return messages.telling(group, run)


def telling_all(run: Callable[[], T]) -> T:
    """Run a function; if it fails, tell all other processes of the program."""
    return run() if is_alone() else telling(whole_group(), run)


def gather(group: "Group", text: str, data: bytes) -> list[bytes]:
    """Return the bytes of each process, by rank.

    Raises:
        MeshError: the processes do different things, one has failed or ended, or did not come in time.
    """
    from torchpure.parallel import messages

    return messages.gather_bytes(group, text, data)


def check_same(group: "Group", text: str, paths: Sequence[str], leaves: Sequence[str]) -> None:
    """Check that all processes have the same leaves at the same paths.

    Raises:
        MeshError: they do not; the message has the first difference.
    """
    from torchpure.parallel import messages

    messages.agree_on(group, text, paths, leaves)
