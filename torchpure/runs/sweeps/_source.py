"""Where the points of a sweep come from: all at once, or in rounds that depend on the results before."""

from collections.abc import Sequence
from typing import Any, Protocol

from ._space import Axis, Sampler, Value, list_points

Points = list[dict[str, Value]]


class Source(Protocol):
    """Rounds of points; it is asked for a round, and told the losses of its members."""

    def ask(self) -> Points:
        """Return the points of the next round; none at the end."""
        ...

    def tell(self, losses: Sequence[float | None]) -> None:
        """Take the losses of the round; None is a loss that is not finite."""
        ...


class _OneRound:
    """All points at once."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def ask(self) -> Points:
        points, self._points = self._points, []
        return points

    def tell(self, losses: Sequence[Any]) -> None:
        return


def make_source(axes: Sequence[Axis], sampler: Sampler, trials: int | None, seed: int) -> Source:
    """Return the source of points that a sampler is.

    Raises:
        InputError: there are too many points, or the number of trials does not fit the sampler.
    """
    return _OneRound(list_points(axes, sampler, trials, seed))
