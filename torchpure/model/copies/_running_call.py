"""A call of a module, while it runs on a private copy of the module.

A backward pass may run a part of the forward again, as checkpointing does. It needs the copy with the parameters of its
call. Then the copy is on loan: it goes back to the pool when nothing can ask for it any more.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from torchpure.transforms.context import resumable

from ._pool import Pool, Skeleton, fill


class _Loan:
    """Alive as long as some part of a call may run again."""

    __slots__ = ("__weakref__",)


class RunningCall:
    """A call of a module that is running; resumable, so that a part of it can run again."""

    __slots__ = ("_loan", "_skeleton")
    tensors: tuple[Tensor, ...] = ()

    def __init__(self, skeleton: Skeleton, loan: _Loan | None = None) -> None:
        self._skeleton, self._loan = skeleton, loan

    @property
    def buffers(self) -> list[Tensor]:
        """The present buffers."""
        present = {number: holder[name] for holder, name, number in self._skeleton.buffers}
        return [present[number] for number in range(len(present))]

    def set_buffers(self, values: Sequence[Tensor]) -> None:
        """Replace the buffers."""
        fill(self._skeleton.buffers, values)

    def snapshot(self) -> "RunningCall":
        """Lend the copy to a later run."""
        if self._loan is None:
            self._loan = _Loan()
        return RunningCall(self._skeleton, self._loan)

    @contextmanager
    def resumed(self, _: Sequence[Tensor]) -> Iterator[None]:
        """Run a part of the call again; the copy has kept its parameters."""
        with resumable(self):
            yield

    def give_back(self, pool: Pool) -> None:
        """Give the copy back to its pool, now or at the end of its loan."""
        if self._loan is None:
            pool.put_back(self._skeleton)
            return
        self.set_buffers([leaf.clone() for leaf in self.buffers])  # a later run must not change the caller's state
        weakref.finalize(self._loan, pool.put_back, self._skeleton)
