"""Compare what a rule returns with what its function returns."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import disable_proxy_modes_tracing
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.context import suppress_callbacks
from torchpure.transforms.engine import describe_function
from torchpure.transforms.overrides import overriding


class OutputCheck:
    """A check that a rule returns what its function does; it runs once for each structure of the arguments."""

    __slots__ = ("_caller", "_checked_keys", "_fn")

    def __init__(self, caller: str, fn: Callable[..., Any]) -> None:
        self._caller, self._fn = caller, fn
        self._checked_keys: set[Any] = set()

    def check(self, key: Any, run: Callable[[], Tree], rule: Callable[..., Any], value: Callable[[], Tree]) -> None:
        """Compare the value of a rule with `run()`, the value of the function.

        Raises:
            StructureError: the structures differ.
            TransformError: a shape or dtype differs.
        """
        if key in self._checked_keys or is_dynamo_compiling():
            return
        try:
            with suppress_callbacks(), torch.no_grad(), overriding(), disable_proxy_modes_tracing():
                expected, structure = tree.flatten(run())
        except Exception:  # only the rule can compute this function
            self._checked_keys.add(key)
            return
        label = comparison(self._caller, rule, self._fn)
        for number, (one, two) in enumerate(zip(expected, tree.ordered(structure, value(), label), strict=True)):
            if isinstance(one, Tensor) and isinstance(two, Tensor) and not _same_shape_and_dtype(one, two):
                path = tree.paths(tree.unflatten(structure, expected))[number]
                raise TransformError(f"{label}: at `{path}` wanted {tree.describe(one)}, got {tree.describe(two)}")
        self._checked_keys.add(key)


def comparison(caller: str, rule: Callable[..., Any], fn: Callable[..., Any]) -> str:
    """Describe the comparison, for an error message."""
    names = describe_function(rule), describe_function(fn)
    return f"{caller}: the value that the rule {names[0]} returns, against that of {names[1]}"


def _same_shape_and_dtype(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and one.dtype == two.dtype
