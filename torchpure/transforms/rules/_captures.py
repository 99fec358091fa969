"""What functions inside of an operation capture: found, replaced, or refused."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from torchpure import tree
from torchpure._torch import get_sequence_nr
from torchpure.errors import TransformError
from torchpure.transforms.engine import current_level, describe_function, functorch
from torchpure.transforms.purity import name_of, reachable


def _traced(leaf: Tensor) -> bool:
    """Tell whether a transform, or autograd, follows this tensor."""
    return leaf.requires_grad or functorch.is_functorch_wrapped_tensor(leaf)


def captured(fn: Any) -> list[Tensor]:
    """List the tensors that a function uses without being given them, and that something follows."""
    return [leaf for leaf in reachable(fn) if _traced(leaf)]


def refuse_captured(who: str, fn: Callable[..., Any], *parts: Any) -> None:
    """Check that a rule loses nothing.

    Raises:
        TransformError: `fn` or another part uses a traced tensor that it is not given, or `torch.compile` is at work
            in a transform.
    """
    if is_dynamo_compiling():
        if tree.untransformed():
            return
        raise TransformError(
            f"{who}: torch.compile ignores rules inside of transforms: compile without it, or transform it"
        )
    for part in (fn, *parts):
        for leaf in captured(part):
            raise TransformError(
                f"{who}: {describe_function(fn)} captures {name_of(leaf, part)}, which a transform follows: its rule "
                "would lose that derivative. Pass it as an argument"
            )


class Closed(TorchFunctionMode):
    """Hands a function other tensors in the place of captured ones, and finds those that nobody knew of."""

    def __init__(self, who: str, fn: Callable[..., Any], given: Sequence[Tensor], instead: dict[int, Tensor]) -> None:
        super().__init__()
        self._who, self._fn = who, fn
        self._known = set(map(id, given))
        self._since = get_sequence_nr()
        self._instead = instead

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ == "__get__":  # an attribute: shapes and the like are nobody's derivative
            found = func(*args)
            if not isinstance(found, Tensor):
                return found
        out = func(*self._seen(args), **self._seen(kwargs or {}))
        for leaf in tree.leaves(out):
            if isinstance(leaf, Tensor):
                self._known.add(id(leaf))
        return out

    def _foreign(self, value: Tensor) -> bool:
        """Tell whether an unknown tensor comes from outside: a gradient inside of the function makes some, too."""
        if functorch.is_functorch_wrapped_tensor(value):
            return functorch.maybe_get_level(value) > current_level()  # one of a closed level was made inside
        return value.requires_grad and (value.grad_fn is None or value.grad_fn._sequence_nr() < self._since)

    def _seen(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            value = self._instead.get(id(value), value)
            if id(value) not in self._known and self._foreign(value):
                raise TransformError(
                    f"{self._who}: {describe_function(self._fn)} uses {tree.describe(value)} that a transform "
                    "follows, by a way that is not seen from outside: pass it as an argument"
                )
            return value
        if type(value) in {tuple, list}:
            return type(value)(map(self._seen, value))
        if isinstance(value, dict):
            return {name: self._seen(part) for name, part in value.items()}
        return value


def closed(
    who: str, fn: Callable[..., Any], given: Sequence[Tensor], instead: dict[int, Tensor] | None = None
) -> AbstractContextManager[Any]:
    """Run `fn` inside an operation: what it captures is replaced, or refused."""
    if is_dynamo_compiling():
        return nullcontext()
    return Closed(who, fn, [*given, *(instead or {}).values()], instead or {})
