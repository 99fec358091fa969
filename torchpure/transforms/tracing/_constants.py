"""Constants of a trace: real values that operations may ask for."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, traceback

from torchpure import tree
from torchpure._torch import FakeTensor, TorchDispatchMode, disable_current_modes, disable_fake_tensor_cache
from torchpure.transforms.engine import Indexing, innermost

from ._constant_recipes import Recipes
from ._dtype_check import check_dtypes
from ._make_fx import trace
from ._mutated_constants import Written, fresh


def is_fake(leaf: Tensor) -> bool:
    """Tell whether a tensor has no numbers: only a tracer makes such."""
    return isinstance(innermost(leaf), FakeTensor)


class RealConstants(TorchDispatchMode):
    """Computes what depends on no argument with its numbers: a program holds it as a constant.

    torch would leave a tensor without numbers there. Nor do its own zeros of forward derivatives have a device here.
    What asks for numbers that depend on no argument gets them. A constant that an argument is written to is none from
    then on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written, self.recipes = Written(), Recipes()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if given and not any(isinstance(leaf, FakeTensor) or leaf in self.written for leaf in given):
            with disable_current_modes():
                return func(*args, **(kwargs or {}))
        check_dtypes(func, args)
        self.written.note(func, [None if isinstance(leaf, FakeTensor) else leaf for leaf in args])
        args, asked = self._asked(func, args, kwargs or {})
        if asked is not None:
            with disable_current_modes():
                return func(*asked[0], **asked[1])
        with _anew(given) if func in _LIKE else nullcontext():
            out = (torch.ops.aten.zeros.default if func in _ZEROS else func)(*args, **(kwargs or {}))
        self.recipes.note(func, args, kwargs or {}, out)
        return out

    def _asked(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return arguments without masks whose entries are known; and all with numbers, if it asks for these."""
        found = None
        if func in _MASKED and (plain := self.recipes.unmasked(*args[:2])):
            self.used(plain.constants)
            args = (args[0], plain.values, *args[2:])
        elif not _ASKS.isdisjoint(func.tags) and (found := self.recipes.known((args, kwargs))):
            self.used(found.constants)
        return args, found and found.values

    def used(self, constants: Sequence[Tensor]) -> None:
        """Take note of constants whose numbers the program depends on."""


_ASKS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_MASKED = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default}
_ZEROS = {torch.ops.aten._efficientzerotensor.default}
_LIKE = {torch.ops.aten._new_zeros_with_same_feature_meta.default}


def _anew(given: Sequence[Tensor]) -> AbstractContextManager[Any]:
    """Run an operation anew: what torch remembers of one has lost where in its memory the result begins."""
    mode = next((leaf.fake_mode for leaf in given if isinstance(leaf, FakeTensor)), None)
    return nullcontext() if mode is None else disable_fake_tensor_cache(mode)


def traced(flat: Callable[..., Any], tensors: Sequence[Tensor], mode: RealConstants) -> GraphModule:
    """Return the program that a function of tensors runs, with what is dead in it; `mode` sees each operation."""

    def run(*values: Tensor) -> Any:
        with mode, Indexing():
            return flat(*values)

    with traceback.preserve_node_meta():
        return fresh(trace(run, tensors), mode.written)
