"""Closure conversion: tensors that a body captures become its arguments (as `jax.closure_convert`).

An operation runs its functions at other levels, where a captured tensor of a transform, autograd or a tracer is
invalid. So the function runs once to find the tensors that it captures. They become inputs of the operation, and a mode
replaces the captured tensors by those inputs whenever the function runs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torchpure import tree
from torchpure._torch import (
    FakeTensor,
    custom_function_call,
    disable_proxy_modes_tracing,
    get_current_function_mode_stack,
    get_proxy_mode,
    get_proxy_slot,
    get_sequence_nr,
    len_torch_dispatch_stack,
)
from torchpure.transforms.context import CallEnv, current, suppress_callbacks
from torchpure.transforms.engine import current_level, expose, functorch, innermost

from ._primitives import with_known_results

_proxy_of: Any = get_proxy_slot
_dispatch_depth = len_torch_dispatch_stack


class _CaptureMode(TorchFunctionMode):
    """Visit each tensor that goes into an operation of torch, and replace it by what `visit` returns."""

    methods: tuple[str, ...]  # of an autograd.Function, in which this mode is active

    def __enter__(self) -> Any:
        current.dispatch_depths.append(_dispatch_depth())
        return super().__enter__()

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        current.dispatch_depths.pop()
        super().__exit__(exc_type, exc_val, exc_tb)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        depths = current.dispatch_depths
        if depths and _dispatch_depth() < depths[-1]:  # a tracer handles an operation: not a call by the function
            return func(*args, **(kwargs or {}))
        args, kwargs = self._map_tensors(args), self._map_tensors(kwargs or {})
        if func is custom_function_call:  # torch disables this mode inside
            args = (_with_mode_inside(self, args[0]), *args[1:])
        out = func(*args, **kwargs)
        self.record_internal(out)
        return out

    def record_internal(self, values: Any) -> None:
        """Record tensors that were made while the function ran."""

    @contextmanager
    def active_inside(self, args: Any) -> Iterator[None]:
        """Activate the mode inside of an operation that got these arguments."""
        with self:
            yield

    def visit(self, leaf: Tensor) -> Tensor:
        """Return the tensor that the operation gets instead of this one."""
        raise NotImplementedError

    def visit_results(self, values: Any) -> Any:
        """Visit the results of the function: it may return a captured tensor unchanged."""
        return self._map_tensors(values)

    def _map_tensors(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.visit(value)
        if type(value) in {tuple, list}:
            return type(value)(map(self._map_tensors, value))
        if isinstance(value, dict):
            return {key: self._map_tensors(part) for key, part in value.items()}
        return value


def _with_mode_inside(mode: _CaptureMode, operation: Any) -> Any:
    """Return a subclass of an autograd.Function whose methods run under a mode."""

    def wrapped(method: Callable[..., Any]) -> Any:
        def run(*args: Any) -> Any:
            with mode.active_inside(args):
                return method(*args)

        return staticmethod(run)

    defined = {key: getattr(operation, key) for key in mode.methods}
    methods = {
        key: wrapped(method) for key, method in defined.items() if method is not getattr(torch.autograd.Function, key)
    }
    return type(operation.__name__, (operation,), methods)


class _FindCaptures(_CaptureMode):
    """Collect the captured tensors that a transform, autograd or a tracer tracks."""

    methods = ("forward", "vmap")  # derivative rules use saved tensors, which are internal

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.found: dict[int, tuple[Tensor, Tensor]] = {}  # id -> tensor, and its replacement by modes further out
        self._internal = set(map(id, inputs))
        self.level = current_level()
        self._first_sequence_nr = get_sequence_nr()
        mode: Any = get_proxy_mode()
        self.tracer = None if mode is None else mode.tracer

    def record_internal(self, values: Any) -> None:
        self._internal.update(id(leaf) for leaf in tree.leaves(values) if isinstance(leaf, Tensor))

    @contextmanager
    def active_inside(self, args: Any) -> Iterator[None]:
        self.record_internal(args)
        outer, self.level = self.level, current_level()
        with self:
            yield
        self.level = outer

    def visit(self, leaf: Tensor) -> Tensor:
        if id(leaf) not in self._internal and id(leaf) not in self.found:
            outer_leaf = expose(leaf)
            if self._is_tracked(outer_leaf):
                self.found[id(leaf)] = (leaf, outer_leaf)
        return leaf

    def _is_tracked(self, leaf: Tensor) -> bool:
        if functorch.is_functorch_wrapped_tensor(leaf):
            if not 0 <= functorch.maybe_get_level(leaf) <= self.level:
                return False  # its level was opened by the function
        elif leaf.requires_grad:
            return leaf.grad_fn is None or leaf.grad_fn._sequence_nr() < self._first_sequence_nr
        elif not isinstance(leaf, FakeTensor):
            return False
        base = innermost(leaf)
        return self.tracer is None or not isinstance(base, FakeTensor) or _proxy_of(base, self.tracer, None) is not None


class ReplaceCaptures(_CaptureMode):
    """Replace the captured tensors of a function by its extra inputs."""

    methods = ("forward", "backward", "jvp", "vmap")

    def __init__(self, captured: Sequence[Tensor], ids: Sequence[int], inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._captured = captured  # keeps their ids taken: a backward pass may run under this mode
        self._replacements = dict(zip(ids, inputs, strict=True))

    @contextmanager
    def active_inside(self, args: Any) -> Iterator[None]:
        before = self._replacements  # an operation that gets a captured tensor as argument uses it unchanged
        arguments = {id(leaf) for leaf in tree.leaves(args) if isinstance(leaf, Tensor)}
        self._replacements = {key: leaf for key, leaf in before.items() if key not in arguments}
        try:
            with self:
                yield
        finally:
            self._replacements = before

    def visit(self, leaf: Tensor) -> Tensor:
        return self._replacements.get(id(leaf), leaf)


_Found = tuple[dict[int, tuple[Tensor, Tensor]], bool, Any]


def _find_captures(run: Callable[..., Any], inputs: Sequence[Tensor], env: CallEnv) -> _Found:
    """Run a function; return its captures by id, whether a tracer was active, and its results."""
    if not current.finds_captures:
        current.finds_captures = True
        try:
            # what fails may only have met results of an inner loop that lack the members of later steps
            with suppress(Exception):
                return _run_to_find(run, inputs, env)
        finally:
            current.finds_captures = False
    return _run_to_find(run, inputs, env)


def _run_to_find(run: Callable[..., Any], inputs: Sequence[Tensor], env: CallEnv) -> _Found:
    aliases = [leaf.view_as(leaf) for leaf in inputs]  # an input may be captured too
    mode = _FindCaptures(aliases)
    for leaf in env.resumed_tensors:
        mode.visit(leaf)
    with torch.no_grad(), suppress_callbacks(), disable_proxy_modes_tracing(), env.restored(env.tensors), mode:
        outputs = mode.visit_results(run(*aliases))
    return mode.found, mode.tracer is not None, outputs


class ClosureConversion:
    """The tensors that `run` captures, found by running it on these inputs."""

    __slots__ = ("_captured", "_context", "_env", "_ids", "consts", "outputs", "suffices")

    def __init__(
        self, run: Callable[..., Any], inputs: Sequence[Tensor], context: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._env = CallEnv()
        self._context = context  # in which converted functions run, besides the environment of the call
        nested = any(isinstance(mode, _FindCaptures) for mode in get_current_function_mode_stack())
        only_shapes_count = nested or current.sampled_level is not None
        found, was_traced, self.outputs = _find_captures(run, inputs, self._env)
        # a tensor that a second run does not use again was made inside unseen
        if found and not was_traced and not only_shapes_count:
            in_second_run, _, _ = _find_captures(run, inputs, self._env)
            found = {key: pair for key, pair in found.items() if key in in_second_run}
        self._captured = [leaf for leaf, _ in found.values()]  # keeps their ids taken
        self._ids = list(found)
        self.consts = tuple(outer_leaf for _, outer_leaf in found.values())
        # An outer search needs no more than this run. A program cannot read the numbers of a tracer's tensors.
        leaves = tree.leaves(self.outputs) if nested and current.finds_captures else [None]
        self.suffices = all(isinstance(leaf, Tensor) and isinstance(innermost(leaf), FakeTensor) for leaf in leaves)

    def convert(self, fn: Callable[..., Any], results: Sequence[Tensor]) -> Callable[..., Any]:
        """Return a function that takes the captured tensors after its own arguments.

        `results` are those of `fn` when the captures were found. Where only shapes count, `fn` need not run again.
        """
        count = len(self._ids)

        def run(*inputs: Tensor) -> Any:
            # a rule may run this outside of the transforms that had set both
            if not count:
                with self._context(), self._env.restored(self._env.tensors):
                    return fn(*inputs)
            mode = ReplaceCaptures(self._captured, self._ids, inputs[len(inputs) - count :])
            tensors = list(map(mode.visit, self._env.tensors))
            with self._context(), self._env.restored(tensors), mode:
                return mode.visit_results(fn(*inputs[: len(inputs) - count]))

        return with_known_results(run, results)
