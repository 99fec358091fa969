"""Callbacks as pairs of pure functions, which compose like transformations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, Tree

from ._progress import Progress

S = TypeVar("S")


class StepValues(NamedTuple):
    """What an observer sees of a step."""

    params: Params  # the trained parameters after the step
    grads: Grads
    loss: Tensor  # before the update; shape ()


@dataclass(frozen=True, slots=True)
class Observer(Generic[S]):
    """A pair of pure functions that runs after each step, inside the compiled loop.

    `init(params)` gets the trained parameters; `step(state, values)` gets `StepValues`. The state holds tensors.
    """

    init: Callable[[Params], S]
    step: Callable[[S, StepValues], S]


@dataclass(frozen=True, slots=True)
class Callback(Generic[S]):
    """A pair of pure functions: `init(params)`, and `update(state, progress)`, which returns (state, stop).

    `update` runs after each report of a run. If `stop` is true, the run ends. The state is a tree of tensors and
    numbers, so that it can be saved. What must be seen at each step is seen by an `observer`; `progress.observed` is
    its state.

    >>> from torchpure.train.callbacks import Callback
    >>> at_most = Callback(lambda params: 0, lambda count, progress: (count + 1, count + 1 >= 3))
    >>> at_most.update(at_most.init(None), None)
    (1, False)
    """

    init: Callable[[Params], S]
    update: Callable[[S, Progress], tuple[S, bool | Tensor]]
    observer: Observer[Any] | None = None


def chain(*callbacks: Callback[Any] | Callable[[Progress], object]) -> Callback[tuple[Any, ...]]:
    """Run several callbacks at each report; the run ends when one of them stops it. A function counts as a callback.

    Law: each part has the state that it has alone.

    Raises:
        TypeError: an argument is no callback.

    >>> import torch, torchpure as tp
    >>> both = chain(lambda progress: progress.step >= 2, tp.train.callbacks.early_stopping(5))
    >>> tp.fit(lambda p, x: (p - x) ** 2, [(torch.tensor(1.0),)], params=torch.tensor(0.0), every=1, callback=both,
    ...        optimizer=tp.optim.sgd(0.25), steps=9).history
    tensor([1.0000, 0.2500])
    """
    parts = [_to_callback("chain", callback) for callback in callbacks]

    def update(states: tuple[Any, ...], progress: Progress) -> tuple[tuple[Any, ...], bool]:
        observed = [None] * len(parts) if progress.observed is None else progress.observed
        results = [
            updated("chain", part, state, progress._replace(observed=seen))
            for part, state, seen in zip(parts, states, observed, strict=True)
        ]
        return tuple(state for state, _ in results), any(stop for _, stop in results)

    return Callback(lambda params: tuple(part.init(params) for part in parts), update, _chain_observers(parts))


def updated(caller: str, callback: Callback[S], state: S, progress: Progress) -> tuple[S, bool]:
    """Return the next state of a callback, and whether the run ends.

    Raises:
        TypeError: the callback returns something else.
    """
    result: Any = callback.update(state, progress)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{caller}: a Callback's update must return (state, stop), got {tree.describe(result)}")
    return result[0], _is_true(caller, result[1])


def _is_true(caller: str, stop: Any) -> bool:
    if isinstance(stop, Tensor) and stop.numel() != 1:
        raise TypeError(f"{caller}: wanted one true or false value from a callback, got {tree.describe(stop)}")
    return bool(stop)


def _chain_observers(parts: Sequence[Callback[Any]]) -> Observer[tuple[Any, ...]] | None:
    observers = [part.observer for part in parts]
    if not any(observers):
        return None

    def step(states: tuple[Any, ...], values: StepValues) -> tuple[Any, ...]:
        pairs = zip(observers, states, strict=True)
        return tuple(None if observer is None else observer.step(state, values) for observer, state in pairs)

    return Observer(lambda params: tuple(None if one is None else one.init(params) for one in observers), step)


def copied(params: Params) -> Params:
    """Copy parameters that a state keeps: a donating optimizer reuses the memory of those it is given."""
    return tree.map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, params)


def as_callback(caller: str, callback: Any) -> Callback[Any] | None:
    """Return what a user passes as `callback=` as one callback: None, a function, a callback, or a list of these.

    Raises:
        TypeError: it is none of these.
    """
    if callback is None:
        return None
    return chain(*callback) if isinstance(callback, list | tuple) else _to_callback(caller, callback)


def _is_factory(callback: Any) -> bool:
    """Return whether this is a function of this package that makes a callback."""
    module, name = getattr(callback, "__module__", None), getattr(callback, "__qualname__", "")
    return str(module).startswith(f"{__package__}.") and name.isidentifier()


def _to_callback(caller: str, callback: Any) -> Callback[Any]:
    if isinstance(callback, Callback):
        return callback
    is_uncalled = isinstance(callback, type) or _is_factory(callback)
    if not callable(callback) or is_uncalled:
        way_out = ": call it, as in early_stopping(10)" if is_uncalled else ""
        raise TypeError(f"{caller}: wanted a function of Progress or a Callback, got {callback!r:.60}{way_out}")

    def update(state: Tree, progress: Progress) -> tuple[Tree, bool]:
        return state, _is_true(caller, callback(progress))

    return Callback(lambda params: None, update)
