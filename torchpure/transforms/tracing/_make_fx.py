"""torch's tracer without `make_fx`, which imports all of torch.compile, takes a second for it, and does not need it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from torchpure import _torch
from torchpure._collector import gc_paused
from torchpure._torch import PH, FakeTensorMode, detect_fake_mode

_parts: Any = _torch  # Any: the declared types do not allow subclasses


class _Names(_parts.PythonKeyTracer):
    """Names constants for each program separately: torch may take the name of a constant of an inner program."""

    def create_arg(self, a: Any) -> Any:
        if not isinstance(a, Tensor):
            return super().create_arg(a)
        found = next((name for name, held in self.root._buffers.items() if held is a), None)
        if found is None:
            found = self.get_fresh_qualname("_tensor_constant")
            self.root.register_buffer(found, a, persistent=False)
        return self.create_node("get_attr", found, (), {})


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
            self.fx_tracer = _Names()
            self.fake_tensor_mode = detect_fake_mode(tuple(tensors)) or FakeTensorMode(
                allow_fallback_kernels=True, allow_non_fake_inputs=True, static_shapes=True
            )
            self._construct_modes_with_fx_tracer(self.fx_tracer)
            return self._trace_inner(fn, *tensors)
        finally:
            self._restore_modes(*before)

    @contextmanager
    def _init_modes_from_parent(self, parent: "_Tracer") -> Iterator[None]:
        before = self._checkpoint_modes()
        try:
            self.fake_tensor_mode = parent.fake_tensor_mode
            self.fx_tracer = _Names()
            self._construct_modes_with_fx_tracer(self.fx_tracer)
            yield
        finally:
            self._restore_modes(*before)

    def _make_sub_tracer(self, decomp_table: Any = None) -> "_Tracer":
        return _Tracer(self.decomposition_table if decomp_table is None else decomp_table, self)

    def _trace_inner(self, fn: Callable[..., Any], *tensors: Any) -> GraphModule:
        fakes = tuple(self.fake_tensor_mode.from_tensor(leaf) for leaf in tensors)
        run = _parts.fake_signature(fn, len(fakes))
        with ExitStack() as stack:
            for mode in (self.fake_tensor_mode, self.torch_fn_metadata_mode, self.proxy_mode):
                stack.enter_context(mode)
            stack.enter_context(_parts.disable_autocast_cache())
            stack.enter_context(_parts.set_make_fx_tracer(self))
            wrapped = _parts.wrap_key(run, fakes, self.fx_tracer, False)
            graph = self.fx_tracer.trace(wrapped, tuple(PH for _ in fakes))
        return GraphModule(self.fx_tracer.root, graph, "Program")


def trace(fn: Callable[..., Any], tensors: Sequence[Tensor], table: Any = None) -> GraphModule:
    """Return the program of a function of tensors; `table` holds decompositions of operations."""
    with gc_paused():
        return _Tracer(table or {}).start(fn, tensors)
