"""Where the points of a sweep come from: all at once, or in rounds that depend on the results before."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from torchpure.errors import InputError

from ._space import Axis, Sampler, Value, check_trials, list_points

Points = list[dict[str, Value]]
ROUNDS = 8  # of a study, if its rounds have fewer than `MAX_ROUND` members
MAX_ROUND = 64


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


class _Optuna:
    """Rounds of trials of one study: all members of a round are asked for, and told, at once."""

    def __init__(self, axes: Sequence[Axis], trials: int, seed: int) -> None:
        """Start a study in memory; the same results give the same points."""
        optuna = _import_optuna()
        self._left, self._size = trials, min(max(trials // ROUNDS, 1), MAX_ROUND)
        self._asked: list[Any] = []
        self._failed = optuna.trial.TrialState.FAIL
        self._distributions = {axis.name: _distribution(optuna.distributions, axis) for axis in axes}
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # a new study would say so on stderr
        try:
            self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed % 2**32))
        finally:
            optuna.logging.set_verbosity(level)

    def ask(self) -> Points:
        count = min(self._size, self._left)
        self._left -= count
        self._asked = [self._study.ask(self._distributions) for _ in range(count)]
        return [{name: trial.params[name] for name in self._distributions} for trial in self._asked]

    def tell(self, losses: Sequence[float | None]) -> None:
        for trial, loss in zip(self._asked, losses, strict=True):
            if loss is None:
                self._study.tell(trial, state=self._failed)
            else:
                self._study.tell(trial, loss)


def _import_optuna() -> Any:
    try:
        return import_module("optuna")
    except ImportError:
        raise InputError("--sampler optuna: needs optuna: pip install 'torchpure[sweep]'") from None


def _distribution(distributions: Any, axis: Axis) -> Any:
    if axis.values:
        return distributions.CategoricalDistribution(axis.values)
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def make_source(axes: Sequence[Axis], sampler: Sampler, trials: int | None, seed: int) -> Source:
    """Return the source of points that a sampler is.

    Raises:
        InputError: there are too many points, the number of trials does not fit the sampler, or optuna is missing.
    """
    if sampler == "optuna":
        return _Optuna(axes, check_trials(trials, sampler), seed)
    return _OneRound(list_points(axes, sampler, trials, seed))
