"""What a function returns, against what a rule that stands for it does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import disable_proxy_modes_tracing
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.context import quiet
from torchpure.transforms.engine import describe_function
from torchpure.transforms.overrides import overriding


class Promise:
    """The value of a function, as it is without its rule: looked at once for each structure of its arguments."""

    __slots__ = ("_fn", "_known", "_who")

    def __init__(self, who: str, fn: Callable[..., Any]) -> None:
        self._who, self._fn = who, fn
        self._known: set[Any] = set()

    def check(self, key: Any, run: Callable[[], Tree], rule: Callable[..., Any], value: Callable[[], Tree]) -> None:
        """Compare what a rule gives with what `run` of the function does.

        Raises:
            StructureError: the rule gives another structure.
            TransformError: or another shape or dtype.
        """
        if key in self._known or is_dynamo_compiling():
            return
        try:
            with quiet(), torch.no_grad(), overriding(), disable_proxy_modes_tracing():
                wanted, structure = tree.flatten(run())
        except Exception:  # a function that only its rule can compute
            self._known.add(key)
            return
        who = against(self._who, rule, self._fn)
        for number, (one, two) in enumerate(zip(wanted, tree.ordered(structure, value(), who), strict=True)):
            if isinstance(one, Tensor) and isinstance(two, Tensor) and not _alike(one, two):
                path = tree.paths(tree.unflatten(structure, wanted))[number]
                raise TransformError(f"{who}: at `{path}` wanted {tree.describe(one)}, got {tree.describe(two)}")
        self._known.add(key)


def against(who: str, rule: Callable[..., Any], fn: Callable[..., Any]) -> str:
    """Say what is compared: what a rule returns, and what its function does."""
    names = describe_function(rule), describe_function(fn)
    return f"{who}: the value that the rule {names[0]} returns, against that of {names[1]}"


def _alike(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and one.dtype == two.dtype
