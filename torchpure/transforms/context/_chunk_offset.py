"""Where members that run at once begin among all members: those of a chunk are some of more."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure.transforms.engine import current_level

Start = int | Tensor  # a tensor in a loop over chunks, which counts its steps


class _Here(threading.local):
    def __init__(self) -> None:
        self.starts: dict[int, Start] = {}  # the level of a vmap -> the number of its first member


_here = _Here()


@contextmanager
def starting(start: Start) -> Iterator[None]:
    """Count the members of the vmap that is open innermost from `start`."""
    if is_dynamo_compiling():
        yield
        return
    here, opened = _here.starts, current_level()
    around = here.get(opened, 0)  # a rule for a loop may open the level again
    here[opened] = start
    try:
        yield
    finally:
        here[opened] = around


def start_of(opened: int) -> Start:
    """Return the number of the first member that runs at a level."""
    return _here.starts.get(opened, 0)
