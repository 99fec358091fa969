"""torch's tracer without `make_fx`, which imports all of torch.compile, takes a second for it, and does not need it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from torchpure import _torch, tree
from torchpure._collector import gc_paused
from torchpure._compile_lock import compile_lock
from torchpure._torch import (
    FakeTensor,
    LazyGraphModule,
    OpOverload,
    detect_fake_mode,
    get_eval_frame_callback,
)
from torchpure.transforms.calls import register_recorder
from torchpure.transforms.engine import LightFakeMode, is_plain, track_fakes

from ._record import RecordingMode

_active_compiler: Any = get_eval_frame_callback
_parts: Any = _torch  # Any: the declared types do not allow subclasses
register_recorder(RecordingMode)


class _Names(_parts.PythonKeyTracer):
    """Names constants for each program separately: torch may take the name of a constant of an inner program."""

    def __init__(self, fakes: Any) -> None:
        super().__init__()
        self._fakes = fakes

    def record_graph(self, run: Callable[[Sequence[Any]], Any], count: int) -> None:
        """Record a function of proxies.

        torch's way replaces methods of `nn.Module` in the whole process meanwhile, which other threads would see.
        """
        self.root, self.graph, self.tensor_attrs = torch.nn.Module(), Graph(tracer_cls=type(self)), {}
        proxies = [self.create_proxy("placeholder", f"arg{number}_1", (), {}) for number in range(count)]
        self.create_node("output", "output", (self.create_arg(run(proxies)),), {})

    def create_arg(self, a: Any) -> Any:
        if not isinstance(a, Tensor):
            return super().create_arg(a)
        found = next((name for name, held in self.root._buffers.items() if held is a), None)
        if found is None:
            found = self.get_fresh_qualname("_tensor_constant")
            self.root.register_buffer(found, a, persistent=False)
        return self.create_node("get_attr", found, (), {})

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None
    ) -> Any:
        """Create a node. torch's way imports sympy; only operations from outside of torch need what it adds."""
        held = getattr(self.root, target) if kind == "get_attr" else None
        foreign = isinstance(target, OpOverload) and target.namespace not in _NAMESPACES
        if foreign or (isinstance(held, Tensor) and not self._is_simple(held)):
            return super().create_node(kind, target, args, kwargs, name, type_expr)
        node = super(_parts.PythonKeyTracer, self).create_node(kind, target, args, kwargs, name, type_expr)
        if isinstance(held, Tensor):
            node.meta["val"] = _snapshot(self._fakes, held)
        return node

    def _is_simple(self, held: Tensor) -> bool:
        """Return whether a light mode can make a fake tensor of a constant."""
        own = isinstance(held, FakeTensor) and held.fake_mode is self._fakes
        return own or (isinstance(self._fakes, LightFakeMode) and is_plain(held))


_NAMESPACES = frozenset({"aten", "prims", "prim"})


def _snapshot(mode: LightFakeMode, leaf: Tensor) -> Tensor:
    return mode.alias(leaf) if isinstance(leaf, FakeTensor) else mode.like(leaf)


class _Tracer(_parts.MakefxTracer):
    """`make_fx` for fake tensors of fixed shapes; bodies of loops are traced by sub-tracers."""

    def __init__(self, table: Any, parent: "_Tracer | None" = None) -> None:
        super().__init__(
            decomposition_table=table,
            tracing_mode="fake",
            _allow_non_fake_inputs=True,
            pre_dispatch=False,
            record_module_stack=False,
            _allow_fake_constant=False,
            _error_on_data_dependent_ops=True,
            parent_tracer=parent,
        )

    def start(self, fn: Callable[..., Any], tensors: Sequence[Tensor]) -> GraphModule:
        """Trace a function of tensors."""
        before = self._checkpoint_modes()
        try:
            self.fake_tensor_mode = detect_fake_mode(tuple(tensors)) or LightFakeMode()
            self._construct_modes()
            return self._trace_inner(fn, *tensors)
        finally:
            self._restore_modes(*before)

    def _on_fakes(self, fn: Callable[..., Any], fakes: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
        """Return a function of proxies that runs `fn` on fake tensors."""

        def run(proxies: Sequence[Any]) -> Any:
            for fake, proxy in zip(fakes, proxies, strict=True):
                track_fakes(self.fx_tracer, fake, proxy)
            return tree.map(self.fx_tracer.unwrap_proxy, fn(*fakes))

        return run

    @contextmanager
    def _init_modes_from_parent(self, parent: "_Tracer") -> Iterator[None]:
        before = self._checkpoint_modes()
        try:
            self.fake_tensor_mode = parent.fake_tensor_mode
            self._construct_modes()
            yield
        finally:
            self._restore_modes(*before)

    def _construct_modes(self) -> None:
        self.fx_tracer = _Names(self.fake_tensor_mode)
        self.proxy_mode = RecordingMode(self.fx_tracer, self.decomposition_table, self.fake_tensor_mode)

    def _make_sub_tracer(self, decomp_table: Any = None) -> "_Tracer":
        return _Tracer(self.decomposition_table if decomp_table is None else decomp_table, self)

    def _trace_inner(self, fn: Callable[..., Any], *tensors: Any) -> GraphModule:
        mode = self.fake_tensor_mode
        light = isinstance(mode, LightFakeMode) and not any(isinstance(leaf, FakeTensor) for leaf in tensors)
        fakes = mode.from_tensors(tensors) if light else [mode.from_tensor(leaf) for leaf in tensors]
        with ExitStack() as stack:
            stack.enter_context(self.fake_tensor_mode)
            stack.enter_context(self.proxy_mode)
            stack.enter_context(_parts.disable_autocast_cache())
            stack.enter_context(_parts.set_make_fx_tracer(self))
            self.fx_tracer.record_graph(self._on_fakes(fn, fakes), len(fakes))
        return LazyGraphModule(self.fx_tracer.root, self.fx_tracer.graph, "Program")


def trace(fn: Callable[..., Any], tensors: Sequence[Tensor], table: Any = None) -> GraphModule:
    """Return the program of a function of tensors; `table` holds decompositions of operations."""
    start = _Tracer(table or {}).start
    if _active_compiler() is not None:  # torch.compile runs the caller, and would compile the tracer
        start = torch.compiler.disable(start)
    with compile_lock, gc_paused():
        return start(fn, tensors)
