"""The environment of a call: what a rule restores when it runs the function of the call again."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from torch import Tensor

from torchpure.transforms.engine import active_autocasts, with_autocasts

from ._axis_env import AxisEnv
from ._context import current


class CallEnv:
    """A snapshot of the axis environment, of what is resumable, and of autocast.

    Its tensors become inputs of the operation, as captured tensors do: a rule may run at other levels.
    """

    __slots__ = ("_autocasts", "_axes", "_resumables", "tensors")

    def __init__(self) -> None:
        self._axes = AxisEnv()
        self._autocasts = active_autocasts()
        self._resumables = tuple(one.snapshot() for one in current.resumables)
        self.tensors = (*self._axes.tensors, *(leaf for one in self._resumables for leaf in one.tensors))

    @property
    def resumed_tensors(self) -> tuple[Tensor, ...]:
        """The tensors of what is resumable, which functions use where no mode sees it."""
        return self.tensors[len(self._axes.tensors) :]

    def names(self, batched: Sequence[bool]) -> list[str]:
        """Return the axes whose index is batched; the flags are those of all tensors."""
        return self._axes.names(batched)

    def positions(self, names: Collection[str]) -> list[int]:
        """Return the positions of the indices of these axes among the tensors."""
        return self._axes.positions(names)

    def restored(self, tensors: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Restore the environment inside of the block, with these tensors instead of its own."""
        if self._resumables or self._autocasts or active_autocasts():
            return self._all_restored(tensors)
        return self._axes.restored(tensors)

    @contextmanager
    def _all_restored(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        position = len(self._axes.tensors)
        with self._axes.restored(tensors[:position]), with_autocasts(self._autocasts), ExitStack() as stack:
            for one in self._resumables:
                stack.enter_context(one.resumed(tensors[position : position + len(one.tensors)]))
                position += len(one.tensors)
            yield
