"""Operations for torch's autograd: tensors pass through one, everything else waits here; parts of their rules."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import TransformError
from torchpure.transforms.context import Around, meetings, without
from torchpure.transforms.engine import describe_function, expose_all, is_variable

from ._packed import Packed


class Call:
    """The arguments of one call: those at `static` positions as they are, of the others the tensors.

    After them come the tensors of what is around the call, which its functions are to find whenever they run.
    """

    def __init__(self, fn: Callable[..., Any], static: Sequence[int], args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.static = {number % len(args): args[number % len(args)] for number in static}
        self.inputs, self.outputs = Packed(), Packed()
        self._around = Around()
        self.meets = set[int]()  # the axes around over which members meet in here, by their places
        given = self.inputs.take(tuple(arg for i, arg in enumerate(args) if i not in self.static))
        self.tensors = (*given, *expose_all(self._around.tensors))
        self._count = len(args)

    def arguments(self, tensors: Sequence[Tensor]) -> list[Any]:
        """Return all arguments, in their order."""
        rest = iter(self.inputs.put(tensors))
        return [self.static[i] if i in self.static else next(rest) for i in range(self._count)]

    def around(self, tensors: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Put around a function what was around the call."""
        count = len(self._around.tensors)
        return self._around.again(tensors[len(tensors) - count :])

    @contextmanager
    def around_all(self, tensors: Sequence[Tensor], marks: Sequence[bool]) -> Iterator[None]:
        """Put around a rule what was around the call, but for the axis whose members it has all at once, as marked."""
        with self.around(tensors), without(self._around.names(marks[len(marks) - len(self._around.tensors) :])):
            yield

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        with self.around(tensors), meetings() as found:
            values = self.outputs.take(self.fn(*self.arguments(tensors)))
        return self.shared_out(found, values, tensors)

    def shared_out(self, names: set[str], values: Sequence[Any], tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return values with a copy for each member, over axes over which members have met; these are some."""
        self.meets.update(self._around.places(names))
        return tuple(self.owned(values, tensors))

    def owned(self, leaves: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
        """Return leaves with a copy for each member, over the axes over which members meet.

        Where members meet, a sum over them is what belongs to each. Of a cotangent that has no members nobody could
        tell whether it is each member's or already the sum of all.
        """
        result = list(leaves)
        for place in self.meets:
            index = tensors[len(tensors) - len(self._around.tensors) + place]
            result = [
                torch.where(index < 0, 0, leaf) if isinstance(leaf, Tensor) and is_variable(leaf) else leaf
                for leaf in result
            ]
        return result

    def again(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value once more, for a backward pass."""
        return self.value(*tensors)


def check_callable(who: str, fn: Any) -> None:
    """Check that what is to be transformed, or gets a rule, is a function.

    Raises:
        TransformError: it is not.
    """
    if not callable(fn):
        hint = ". Pass the function itself, and its arguments to what comes back" if isinstance(fn, Tensor) else ""
        raise TransformError(f"{who}: wanted a function, got {tree.describe(fn)}{hint}")


def check_static(who: str, numbers: Any) -> tuple[int, ...]:
    """Return which arguments have no derivative.

    Raises:
        TransformError: these are no positions.
    """
    if not isinstance(numbers, Sequence) or not all(type(number) is int for number in numbers):
        raise TransformError(f"{who}: nondiff_argnums must be a tuple of ints, got {tree.describe(numbers)}")
    return tuple(numbers)


def positional(
    who: str, fn: Callable[..., Any], static: Sequence[int], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Return all arguments of a call by position, as rules get them: those given by name, and defaults, too.

    Raises:
        TransformError: one has no position, or `static` names one that there is not.
    """
    defaults = getattr(fn, "__defaults__", None)
    if kwargs or (defaults and len(args) < fn.__code__.co_argcount):
        args = _bound(who, fn, args, kwargs)
    for number in static:
        if not -len(args) <= number < len(args):
            raise TransformError(
                f"{who}: nondiff_argnums={tuple(static)} does not fit the {len(args)} arguments of "
                f"{describe_function(fn)}: there is no argument {number}"
            )
    return args


def _bound(who: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    try:
        known = signature(fn)
    except (TypeError, ValueError):  # a function of C
        names = ", ".join(map(repr, kwargs))
        raise TransformError(
            f"{who}: {describe_function(fn)} does not tell where its arguments {names} stand, and a rule takes them by "
            "position: pass them by position"
        ) from None
    bound = known.bind(*args, **kwargs)
    bound.apply_defaults()
    alone = [repr(name) for name in kwargs if name in bound.kwargs]
    if alone:
        raise TransformError(
            f"{who}: {describe_function(fn)} takes {', '.join(alone)} by name alone, and a rule takes its arguments by "
            "position: let the function take them by position too, or bind them in a function around"
        )
    return bound.args


def like_number(part: Any, leaf: Tensor) -> Any:
    """Make a tensor of a Python number that stands for one of shape (); everything else stays as it is."""
    if type(part) not in {int, float, complex} or leaf.ndim or (type(part) is complex and not leaf.is_complex()):
        return part
    return torch.full((), part, dtype=leaf.dtype, device=leaf.device)
