"""Tracing with real constants: values that depend on no argument keep their numbers."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, traceback

from torchpure import tree
from torchpure._compile_lock import compile_lock
from torchpure._torch import (
    FakeTensor,
    TorchDispatchMode,
    disable_current_modes,
    disable_fake_tensor_cache,
    get_proxy_mode,
)
from torchpure.transforms.engine import TensorIndexing, innermost, traced_zeros
from torchpure.transforms.purity import NORMS_THAT_WRITE

from ._constant_recipes import Recipes
from ._dtype_check import check_dtypes
from ._make_fx import trace
from ._mutated_constants import MutatedConstants, copy_mutated_constants
from ._plans import plan_of
from ._record import RecordingMode

_aten = torch.ops.aten


def is_fake(leaf: Tensor) -> bool:
    """Return whether a tensor is fake, without numbers: only tracers make such tensors."""
    return isinstance(innermost(leaf), FakeTensor)


class RealConstants(TorchDispatchMode):
    """Computes values that depend on no argument with real numbers; the program holds them as constants.

    torch alone would make fake tensors of them. An operation that asks for numbers which depend on no argument gets
    them. A constant into which an argument is written is no constant afterwards.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mutated, self.recipes = MutatedConstants(), Recipes()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE:
            return args[0].fake_device if isinstance(args[0], FakeTensor) else func(*args)
        out = self.record(func, args, kwargs or {})
        return self.run(func, args, kwargs or {}) if out is NotImplemented else out

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Record an operation in one step, and return its result; NotImplemented if it needs more care."""
        mode = get_proxy_mode()
        if not isinstance(mode, RecordingMode) or _writes(func):
            return NotImplemented
        check_dtypes(func, args)
        out = mode.record(func, args, kwargs, self.note_captures)
        if out is not NotImplemented:
            self.recipes.note(func, args, kwargs, out)
        return out

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation: with numbers, if its arguments have them."""
        given = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if given and not any(isinstance(leaf, FakeTensor) or leaf in self.mutated for leaf in given):
            with disable_current_modes():
                return func(*args, **kwargs)
        check_dtypes(func, args)
        self.mutated.note(func, args, kwargs or {})
        args, numbers = self._with_numbers(func, args, kwargs or {})
        if numbers is not None:
            with disable_current_modes():
                return func(*numbers[0], **numbers[1])
        with _without_fake_cache(given) if func in _LIKE else nullcontext():
            out = (traced_zeros if func in _ZEROS else func)(*args, **(kwargs or {}))
        made_by = _aten.zeros.default if func in _ZEROS else func  # kernels read the memory, which such zeros lack
        self.recipes.note(made_by, args, kwargs or {}, out)
        return out

    def _with_numbers(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Return the arguments without known masks; and all of them as numbers, if the operation asks for numbers."""
        found = None
        if func in _MASKED and (plain := self.recipes.unmasked(*args[:2])):
            self.used(plain.constants)
            args = (args[0], plain.values, *args[2:])
        elif not _ASKS_FOR_NUMBERS.isdisjoint(func.tags) and (found := self.recipes.known((args, kwargs))):
            self.used(found.constants)
        return args, found and found.values

    def note_captures(self, values: Any) -> Any:
        """Record constants that an operation reads."""

    def used(self, constants: Sequence[Tensor]) -> None:
        """Record constants whose numbers the program depends on."""


_ASKS_FOR_NUMBERS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_DEVICE = torch.ops.prim.device.default
_MASKED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}
_ZEROS = {_aten._efficientzerotensor.default}
_LIKE = {_aten._new_zeros_with_same_feature_meta.default}


def _writes(func: Any) -> bool:
    plan = plan_of(func)
    return plan is None or plan.writes or func in NORMS_THAT_WRITE


def _without_fake_cache(given: Sequence[Tensor]) -> AbstractContextManager[Any]:
    """Bypass torch's cache of fake results: it drops storage offsets."""
    mode = next((leaf.fake_mode for leaf in given if isinstance(leaf, FakeTensor)), None)
    return nullcontext() if mode is None else disable_fake_tensor_cache(mode)


def trace_with_constants(flat: Callable[..., Any], tensors: Sequence[Tensor], mode: RealConstants) -> GraphModule:
    """Return the program of a function of tensors, dead code included; `mode` sees each operation."""

    def run(*values: Tensor) -> Any:
        with mode, TensorIndexing():
            return flat(*values)

    with compile_lock, traceback.preserve_node_meta():
        return copy_mutated_constants(trace(run, tensors), mode.mutated)
