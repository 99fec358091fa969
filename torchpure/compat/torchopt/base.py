"""Pairs of functions that transform gradients, in torchopt's form: `update(updates, state, params=, inplace=)`."""

from collections.abc import Callable
from itertools import chain as concatenate
from typing import Any, NamedTuple, Protocol

__all__ = [
    "ChainedGradientTransformation",
    "EmptyState",
    "GradientTransformation",
    "UninitializedState",
    "identity",
]


class EmptyState(NamedTuple):
    """State of a transformation without memory."""


class UninitializedState(NamedTuple):
    """State of an optimizer that has not made a step."""


class TransformInitFn(Protocol):
    """Make the state from the parameters."""

    def __call__(self, params: Any) -> Any: ...


class TransformUpdateFn(Protocol):
    """Turn updates and a state into new ones."""

    def __call__(self, updates: Any, state: Any, *, params: Any = None, inplace: bool = True) -> tuple[Any, Any]: ...


class GradientTransformation(NamedTuple):
    """A pair of functions, `init(params)` and `update(updates, state, *, params=None, inplace=True)`.

    >>> identity().update((1.0,), EmptyState())
    ((1.0,), EmptyState())
    """

    init: Callable[[Any], Any]
    update: TransformUpdateFn

    def chain(self, next: "GradientTransformation") -> "ChainedGradientTransformation":
        """Apply this transformation, then `next`."""
        return ChainedGradientTransformation(self, next)


class ChainedGradientTransformation(GradientTransformation):
    """Transformations that are applied one after another; the state is the tuple of their states."""

    transformations: tuple[GradientTransformation, ...]

    def __new__(cls, *transformations: GradientTransformation) -> "ChainedGradientTransformation":
        """Join the transformations; chains are flattened, and identities left out."""
        members = tuple(concatenate.from_iterable(map(_members, transformations))) or (identity(),)

        def init(params: Any) -> tuple[Any, ...]:
            return tuple(member.init(params) for member in members)

        def update(updates: Any, state: Any, *, params: Any = None, inplace: bool = True) -> tuple[Any, Any]:
            if len(state) != len(members):
                raise ValueError(
                    f"chain: wanted the states of {len(members)} transformations, got {len(state)}: call init first"
                )
            states = []
            for member, old in zip(members, state, strict=True):
                updates, new = member.update(updates, old, params=params, inplace=inplace)
                states.append(new)
            return updates, tuple(states)

        instance = super().__new__(cls, init, update)
        instance.transformations = members
        return instance

    def __repr__(self) -> str:
        return f"{type(self).__name__}(\n    " + ",\n    ".join(map(repr, self.transformations)) + ",\n)"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ChainedGradientTransformation):
            return self.transformations == other.transformations
        return isinstance(other, GradientTransformation) and self.transformations == (other,)

    def __hash__(self) -> int:
        return hash(self.transformations)

    def __getstate__(self) -> tuple[GradientTransformation, ...]:
        return self.transformations

    def __setstate__(self, state: tuple[GradientTransformation, ...]) -> None:
        self.transformations = state

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[GradientTransformation, ...]]:
        return type(self), self.transformations


class IdentityGradientTransformation(GradientTransformation):
    """The transformation that changes nothing."""

    def __new__(cls) -> "IdentityGradientTransformation":
        """Make the pair."""
        return super().__new__(cls, cls.init_fn, cls.update_fn)

    @staticmethod
    def init_fn(params: Any) -> EmptyState:
        """Return the empty state."""
        return EmptyState()

    @staticmethod
    def update_fn(updates: Any, state: Any, *, params: Any = None, inplace: bool = True) -> tuple[Any, Any]:
        """Return the arguments."""
        return updates, state


class StateGroups:
    """An object that keeps optimizer states: `stop_gradient` and the other functions of `utils` accept it."""

    state_groups: list[Any]

    def state_dict(self) -> tuple[Any, ...]:
        """Return the states themselves, not copies."""
        return tuple(self.state_groups)

    def load_state_dict(self, state_dict: Any) -> None:
        """Take these states, without a copy."""
        self.state_groups[:] = list(state_dict)


def identity() -> IdentityGradientTransformation:
    """Make the transformation that changes nothing."""
    return IdentityGradientTransformation()


def _members(transformation: GradientTransformation) -> tuple[GradientTransformation, ...]:
    if isinstance(transformation, ChainedGradientTransformation):
        return transformation.transformations
    return () if isinstance(transformation, IdentityGradientTransformation) else (transformation,)


def check_transformation(impl: Any) -> None:
    """Raise TypeError if the object is no GradientTransformation.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(impl, GradientTransformation):
        raise TypeError(f"{impl} (type: {type(impl).__name__}) is not a GradientTransformation")
