"""Tensors that functions inside of an operation capture: found, replaced, or refused."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import update_wrapper
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from torchpure import tree
from torchpure._torch import FakeTensor, get_sequence_nr
from torchpure.errors import TransformError
from torchpure.transforms.calls import ReplaceCaptures
from torchpure.transforms.engine import current_level, describe_function, expose, functorch
from torchpure.transforms.purity import name_of, reachable


def _is_transformed(leaf: Tensor) -> bool:
    """Tell whether a transform or autograd tracks a tensor."""
    return leaf.requires_grad or functorch.is_functorch_wrapped_tensor(leaf)


def find_captures(fn: Any) -> list[Tensor]:
    """Return the tensors that a function captures and that a transform or autograd tracks."""
    return [leaf for leaf in reachable(fn) if _is_transformed(leaf)]


def lift_captures(fn: Callable[..., Any], lift: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """Return `fn` with `lift` of each captured tensor that a transform, autograd or a tracer tracks."""
    captured = [leaf for leaf in reachable(fn) if _is_transformed(leaf) or isinstance(leaf, FakeTensor)]
    if not captured:
        return fn
    mode = ReplaceCaptures(captured, list(map(id, captured)), [lift(expose(leaf)) for leaf in captured])

    def run(*args: Any) -> Any:
        with mode:
            return mode.visit_results(fn(*args))

    return update_wrapper(run, fn, updated=())


def refuse_captures(caller: str, fn: Callable[..., Any], *functions: Any) -> None:
    """Check that `fn` and its rules capture no tensor whose derivative would be lost.

    Raises:
        TransformError: one of them captures a tensor that a transform tracks, or `torch.compile` traces a transform.
    """
    if is_dynamo_compiling():
        if tree.untransformed():
            return
        raise TransformError(
            f"{caller}: torch.compile ignores rules inside of transforms: compile without it, or transform it"
        )
    for function in (fn, *functions):
        for leaf in find_captures(function):
            raise TransformError(
                f"{caller}: {describe_function(fn)} captures {name_of(leaf, function)}, which a transform follows: "
                "its rule would lose that derivative. Pass it as an argument"
            )


class CaptureGuard(TorchFunctionMode):
    """Replace known captures of a function by its inputs, and refuse unknown captures."""

    def __init__(
        self, caller: str, fn: Callable[..., Any], inputs: Sequence[Tensor], replacements: dict[int, Tensor]
    ) -> None:
        super().__init__()
        self._caller, self._fn = caller, fn
        self._internal = set(map(id, inputs))
        self._first_sequence_nr = get_sequence_nr()
        self._replacements = replacements

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ == "__get__":  # an attribute such as the shape has no derivative
            attribute = func(*args)
            if not isinstance(attribute, Tensor):
                return attribute
        out = func(*self._replaced(args), **self._replaced(kwargs or {}))
        for leaf in tree.leaves(out):
            if isinstance(leaf, Tensor):
                self._internal.add(id(leaf))
        return out

    def _is_captured(self, value: Tensor) -> bool:
        """Tell whether an unknown tensor comes from outside; a gradient inside the function makes new ones too."""
        if functorch.is_functorch_wrapped_tensor(value):
            return functorch.maybe_get_level(value) > current_level()  # a tensor of a closed level was made inside
        return value.requires_grad and (value.grad_fn is None or value.grad_fn._sequence_nr() < self._first_sequence_nr)

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            value = self._replacements.get(id(value), value)
            if id(value) not in self._internal and self._is_captured(value):
                raise TransformError(
                    f"{self._caller}: {describe_function(self._fn)} uses {tree.describe(value)} that a transform "
                    "follows, and that could not be found from its closure: pass it as an argument"
                )
            return value
        if type(value) in {tuple, list}:
            return type(value)(map(self._replaced, value))
        if isinstance(value, dict):
            return {name: self._replaced(part) for name, part in value.items()}
        return value


def guard_captures(
    caller: str, fn: Callable[..., Any], inputs: Sequence[Tensor], replacements: dict[int, Tensor] | None = None
) -> AbstractContextManager[Any]:
    """Guard a run of `fn` inside an operation: its captures are replaced, or refused."""
    if is_dynamo_compiling():
        return nullcontext()
    return CaptureGuard(caller, fn, [*inputs, *(replacements or {}).values()], replacements or {})
