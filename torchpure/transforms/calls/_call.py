"""The record of one call: its tensors, its static arguments and its environment; checks of arguments."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import TransformError
from torchpure.transforms.context import CallEnv, collapse_axes, collectives_used
from torchpure.transforms.engine import describe_function, expose_all, is_variable

from ._packed import Packed


class Call:
    """The arguments of one call of `fn`.

    `tensors` holds the tensors of all arguments that are not static, then those of its environment. Rules pass
    them back, possibly at other levels, and `fn` then runs in the same environment.
    """

    def __init__(self, fn: Callable[..., Any], static: Sequence[int], args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.static = {argnum % len(args): args[argnum % len(args)] for argnum in static}
        self.inputs, self.outputs = Packed(), Packed()
        self._env = CallEnv()
        self.collective_positions = set[int]()  # positions of axes with collectives in the environment
        tensors = self.inputs.flatten(tuple(arg for i, arg in enumerate(args) if i not in self.static))
        self.tensors = (*tensors, *expose_all(self._env.tensors))
        self._count = len(args)

    def arguments(self, tensors: Sequence[Tensor]) -> list[Any]:
        """Return all arguments, in order."""
        rest = iter(self.inputs.unflatten(tensors))
        return [self.static[i] if i in self.static else next(rest) for i in range(self._count)]

    def restore_env(self, tensors: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Restore the environment of the call, in which its functions run."""
        count = len(self._env.tensors)
        return self._env.restored(tensors[len(tensors) - count :])

    @contextmanager
    def restore_env_collapsed(self, tensors: Sequence[Tensor], batched: Sequence[bool]) -> Iterator[None]:
        """Restore the environment, without the axes that are batched: the rule has all their members."""
        with (
            self.restore_env(tensors),
            collapse_axes(self._env.names(batched[len(batched) - len(self._env.tensors) :])),
        ):
            yield

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        with self.restore_env(tensors), collectives_used() as found:
            values = self.outputs.flatten(self.fn(*self.arguments(tensors)))
        return self.expand_recorded(found, values, tensors)

    def expand_recorded(self, names: set[str], values: Sequence[Any], tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """Record the axes of collectives that ran; return values as `expand_over_collectives` does."""
        self.collective_positions.update(self._env.positions(names))
        return tuple(self.expand_over_collectives(values, tensors))

    def expand_over_collectives(self, leaves: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
        """Return leaves with a copy for each member, over the axes on which the call uses collectives.

        The cotangent of a member is a sum over members there. A cotangent without a batch dimension would be
        ambiguous: it could be that of each member, or already the sum.
        """
        result = list(leaves)
        for position in self.collective_positions:
            index = tensors[len(tensors) - len(self._env.tensors) + position]
            result = [
                torch.where(index < 0, 0, leaf) if isinstance(leaf, Tensor) and is_variable(leaf) else leaf
                for leaf in result
            ]
        return result

    def recompute(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Compute the tensors of the value again, for a backward pass."""
        return self.value(*tensors)


def check_callable(caller: str, fn: Any) -> None:
    """Check that the argument of a transform is a function.

    Raises:
        TransformError: it is not.
    """
    if not callable(fn):
        hint = ". Pass the function itself, and its arguments to what comes back" if isinstance(fn, Tensor) else ""
        raise TransformError(f"{caller}: wanted a function, got {tree.describe(fn)}{hint}")


def check_nondiff_argnums(caller: str, argnums: Any) -> tuple[int, ...]:
    """Return `nondiff_argnums` as a tuple.

    Raises:
        TransformError: it is not a sequence of ints.
    """
    if not isinstance(argnums, Sequence) or not all(type(argnum) is int for argnum in argnums):
        raise TransformError(f"{caller}: nondiff_argnums must be a tuple of ints, got {tree.describe(argnums)}")
    return tuple(argnums)


def bind_positional(
    caller: str, fn: Callable[..., Any], static: Sequence[int], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Return all arguments of a call by position, as rules get them, with keyword arguments and defaults.

    Raises:
        TransformError: an argument is keyword-only, or `static` names an argument that does not exist.
    """
    defaults = getattr(fn, "__defaults__", None)
    if kwargs or (defaults and len(args) < fn.__code__.co_argcount):
        args = _bind(caller, fn, args, kwargs)
    for argnum in static:
        if not -len(args) <= argnum < len(args):
            raise TransformError(
                f"{caller}: nondiff_argnums={tuple(static)} does not fit the {len(args)} arguments of "
                f"{describe_function(fn)}: there is no argument {argnum}"
            )
    return args


def _bind(caller: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    try:
        parameters = signature(fn)
    except (TypeError, ValueError):  # a function written in C
        names = ", ".join(map(repr, kwargs))
        raise TransformError(
            f"{caller}: {describe_function(fn)} has no signature, so the positions of {names} are unknown, and a rule "
            "takes arguments by position: pass them by position"
        ) from None
    bound = parameters.bind(*args, **kwargs)
    bound.apply_defaults()
    keyword_only = [repr(name) for name in kwargs if name in bound.kwargs]
    if keyword_only:
        raise TransformError(
            f"{caller}: {describe_function(fn)} takes {', '.join(keyword_only)} by name alone, and a rule takes its "
            "arguments by position: let the function take them by position too, or bind them with functools.partial"
        )
    return bound.args


def number_to_tensor(value: Any, leaf: Tensor) -> Any:
    """Convert a Python number to a tensor like `leaf`, if that has shape (); return other values as they are."""
    if type(value) not in {int, float, complex} or leaf.ndim or (type(value) is complex and not leaf.is_complex()):
        return value
    return torch.full((), value, dtype=leaf.dtype, device=leaf.device)
