"""Record the common operations of a traced program in one step, without torch's two modes.

torch asks three modes in turn about each operation, and flattens its arguments in each. Most operations need none of
that: their arguments are fake tensors and numbers, and one kernel gives the shapes of their results. Every other
operation goes through torch's modes.

Law: the program is the one that torch's modes would record, with `squeeze` in the place of `squeeze_`, and `add` in the
place of `add_` where no view of the changed tensor exists.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import traceback
from torch.fx.immutable_collections import immutable_list

from torchpure._torch import (
    DisableTorchDispatch,
    DisableTorchFunction,
    DispatchKey,
    FakeTensor,
    OpOverload,
    ProxyTensor,
    has_kernel,
    meta_kernels,
)
from torchpure.transforms.engine import LightFakeMode, LightProxyMode, empty_like_memory, is_plain

from . import _layouts as layouts

_aten = torch.ops.aten
_PLAIN = frozenset({  # operations whose kernels for shapes read nothing but their arguments
    _aten.mm.default, _aten.bmm.default, _aten.addmm.default, _aten.baddbmm.default, _aten.mv.default,
    _aten.dot.default, _aten.sum.default, _aten.sum.dim_IntList, _aten.mean.default, _aten.mean.dim, _aten.amax.default,
    _aten.amin.default, _aten.cat.default, _aten.stack.default, _aten.clone.default, _aten.select_backward.default,
    _aten.slice_backward.default, _aten._unsafe_view.default, _aten.ones_like.default, _aten.zeros_like.default,
    _aten.full_like.default, _aten.empty_like.default, _aten.new_zeros.default, _aten.new_ones.default,
    _aten.new_full.default, _aten.new_empty.default, _aten._to_copy.default, _aten.cumsum.default,
    _aten.max.dim, _aten.min.dim, _aten.max.default, _aten.min.default, _aten.argmax.default, _aten.argmin.default,
    _aten.gather.default, _aten.index_select.default, _aten.all.default, _aten.any.default,
})  # fmt: skip
_CONSTRUCTORS = frozenset({
    _aten.zeros.default, _aten.ones.default, _aten.full.default, _aten.empty.memory_format, _aten.arange.default,
    _aten.arange.start, _aten.arange.start_step, _aten.eye.default, _aten.eye.m, _aten.scalar_tensor.default,
})  # fmt: skip
_ALIASES = {_aten._unsafe_view.default}  # that their schemas do not tell
_INPLACE_VIEWS = {
    _aten.squeeze_.default: _aten.squeeze.default, _aten.squeeze_.dim: _aten.squeeze.dim,
    _aten.squeeze_.dims: _aten.squeeze.dims, _aten.unsqueeze_.default: _aten.unsqueeze.default,
    _aten.t_.default: _aten.t.default, _aten.transpose_.default: _aten.transpose.int,
}  # fmt: skip
_EXCLUDED_TAGS = {
    torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded,
    torch.Tag.inplace_view,
}  # fmt: skip
_TO_COPY = _aten._to_copy.default  # vmap calls it with a number, to make a tensor of it
_NUMBERS = frozenset({int, float, bool})
_CPU = torch.device("cpu")
_CONTAINERS = frozenset({list, tuple, immutable_list})
_ATOMS = frozenset({int, float, bool, str, type(None), torch.dtype, torch.layout, torch.memory_format, torch.device})


class Plan(NamedTuple):
    """How an operation is recorded."""

    target: Any  # the operation of the node
    name: str
    kernel: Any  # the operation that is run for the layout of the result
    constructs: bool = False  # it takes no tensor
    reshapes: bool = False  # it changes the shape of its first argument
    writes: bool = False  # it writes numbers to its first argument
    aliases: bool = False  # its result shares memory with an argument


@cache
def plan_of(func: Any) -> Plan | None:
    """Return how an operation is recorded in one step; None if torch's modes must record it."""
    if not isinstance(func, OpOverload):
        return None
    name = func.overloadpacket.__name__
    if func in _INPLACE_VIEWS:
        target = _INPLACE_VIEWS[func]
        return Plan(target, name.removesuffix("_"), target, reshapes=True, aliases=True)
    if func in _CONSTRUCTORS:
        return Plan(func, name, func, constructs=True)
    if func in _PLAIN or func in layouts.RUNNABLE or _has_plain_kernel(func):
        return Plan(func, name, func, aliases=_may_alias(func))
    functional = _functional_form(func)
    return None if functional is None else Plan(func, name, functional, writes=True)


def _functional_form(func: OpOverload) -> OpOverload | None:
    """Return the elementwise operation whose result an operation in place writes to its first argument."""
    name, overload = func.overloadpacket.__name__, str(func).rpartition(".")[2]
    elementwise = func.namespace == "aten" and torch.Tag.pointwise in func.tags and name.endswith("_")
    if not elementwise or name in {"fill_", "copy_"}:  # whose functional forms are not elementwise
        return None
    found = getattr(getattr(_aten, name[:-1], None), overload, None)
    return found if found is not None and _has_plain_kernel(found) else None


@cache
def _is_composite(func: Any) -> bool:
    """Return whether an operation is a function of others on every device."""
    key: Any = DispatchKey
    return (
        isinstance(func, OpOverload)
        and func.namespace == "aten"
        and has_kernel(func.name(), key.CompositeImplicitAutograd)
        and not (has_kernel(func.name(), key.CPU) or has_kernel(func.name(), key.CUDA))
        and [str(part.type) for part in func._schema.returns] == ["Tensor"]
    )


def _may_alias(func: OpOverload) -> bool:
    return func in _ALIASES or any(part.alias_info is not None for part in func._schema.returns)


def _has_plain_kernel(func: OpOverload) -> bool:
    """Tell whether an operation is elementwise or a view, and has a kernel for shapes."""
    key: Any = DispatchKey
    schema = func._schema
    return (
        func.namespace == "aten"
        and (torch.Tag.pointwise in func.tags or func.is_view)
        and not schema.is_mutable
        and _EXCLUDED_TAGS.isdisjoint(func.tags)
        and [str(part.type) for part in schema.returns] == ["Tensor"]
        and not has_kernel(func.name(), key.CompositeImplicitAutograd)
        and (has_kernel(func.name(), key.Meta) or has_kernel(func.name(), key.CompositeExplicitAutograd))
    )


class _NeedsTorchError(Exception):
    """An argument that torch's modes must handle."""


class _Tracked(ProxyTensor):
    """What the tracer knows of a fake tensor: its proxy, and a tensor on the device `meta` of the same layout."""

    def __init__(self, proxy: Any, memory: Tensor) -> None:
        super().__init__(proxy, None)
        self.memory = memory


class _Arguments:
    """The arguments of one operation, for its node and for its kernel."""

    def __init__(self, tracer: Any, fakes: LightFakeMode) -> None:
        self._tracer, self._fakes = tracer, fakes
        self.devices: set[torch.device] = set()  # of the fake tensors
        self.constants: list[Tensor] = []

    def convert(self, arg: Any) -> tuple[Any, Any]:
        """Return an argument of the node, and one of the kernel.

        Raises:
            _NeedsTorchError: the argument is of another kind.
        """
        kind = type(arg)
        if kind in _ATOMS:
            return arg, arg
        if kind is FakeTensor:
            return self._convert_fake(arg)
        if kind in _CONTAINERS:
            pairs = [self.convert(part) for part in arg]
            return kind([node for node, _ in pairs]), [value for _, value in pairs]
        if kind is not Tensor or not is_plain(arg):
            raise _NeedsTorchError
        self.constants.append(arg)
        return self._tracer.create_arg(arg), empty_like_memory(arg)

    def _convert_fake(self, fake: Any) -> tuple[Any, Tensor]:
        known = self._tracer.tensor_tracker.get(fake)
        if known is None or known.constant is not None or fake.constant is not None:
            raise _NeedsTorchError
        if fake.fake_mode is not self._fakes or fake.layout is not torch.strided:
            raise _NeedsTorchError
        self.devices.add(fake.fake_device)
        memory = getattr(known, "memory", None)
        if memory is None or memory.shape != fake.shape or memory.stride() != fake.stride():
            memory = self._fakes.memory(fake)
        return known.proxy.node, memory


class RecordingMode(LightProxyMode):
    """Records each operation as a node: in one step where that is possible."""

    def __init__(self, tracer: Any, table: Any, fakes: Any) -> None:
        super().__init__(tracer, table)
        self._fakes: Any = fakes
        self._is_light = isinstance(fakes, LightFakeMode)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record an operation and return its result."""
        rule = self.decomposition_table.get(func) or (func.decompose if _is_composite(func) else None)
        if rule is not None:
            with self:
                out = rule(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = self.record(func, args, kwargs or {})
        return super().__torch_dispatch__(func, types, args, kwargs) if out is NotImplemented else out

    def record(self, func: Any, args: Any, kwargs: Any, note_constants: Callable[[list[Tensor]], Any] = len) -> Any:
        """Record an operation in one step and return its result; NotImplemented if torch's modes must do it.

        `note_constants` is called with the arguments that are constants.
        """
        plan = plan_of(func) if self._is_light else None
        if plan is None or func in self.decomposition_table:
            return NotImplemented
        with DisableTorchFunction():  # function modes would see each look at a shape
            return self._record(plan, func, args, kwargs, note_constants)

    def _record(self, plan: Plan, func: Any, args: Any, kwargs: Any, note_constants: Callable[..., Any]) -> Any:
        given = _Arguments(self.tracer, self._fakes)
        try:
            pairs = [given.convert(arg) for arg in args]
            device = _result_device(plan, args, kwargs, given)
        except _NeedsTorchError:
            return NotImplemented
        if given.constants:
            note_constants(given.constants)
        values = [value for _, value in pairs]
        with DisableTorchDispatch():
            out = _shapes(plan, values, kwargs)
            if plan.writes and (out.shape != args[0].shape or not torch.can_cast(out.dtype, args[0].dtype)):
                return NotImplemented
        if plan.writes and _owns_memory(pairs[0][0]) and _same_layout(out, values[0]):
            plan = plan._replace(target=plan.kernel, name=plan.kernel.overloadpacket.__name__)
        node = self.tracer.create_node("call_function", plan.target, tuple([n for n, _ in pairs]), kwargs, plan.name)
        if traceback.has_preserved_node_meta():
            node.meta.setdefault("original_aten", func)
        if plan.writes or plan.reshapes:
            return self._change_argument(plan, func, args, values[0] if plan.writes else out, node, device)
        return self._track_new(out, self.tracer.proxy(node), device)

    def _change_argument(self, plan: Plan, func: Any, args: Any, memory: Tensor, node: Any, device: Any) -> Any:
        if plan.reshapes:
            with meta_kernels(self._fakes):
                getattr(Tensor, func.overloadpacket.__name__)(*args)
        return self._track(args[0], memory, self.tracer.proxy(node), device)

    def _track_new(self, out: Any, proxy: Any, device: torch.device) -> Any:
        """Return fake tensors for results, each with its proxy."""
        if isinstance(out, Tensor):
            return self._track(self._fakes.wrap(out, device), out, proxy, device)
        fakes = tuple([part if part is None else self._track_new(part, proxy[i], device) for i, part in enumerate(out)])
        proxy.node.meta["val"] = tuple([part if part is None else self._fakes.wrap(part, device) for part in out])
        return fakes

    def _track(self, fake: Any, memory: Tensor, proxy: Any, device: torch.device) -> Any:
        """Let a fake tensor stand for a proxy. The node keeps one of its own: the shape of `fake` may change."""
        proxy.node.meta["val"] = self._fakes.wrap(memory, device)
        self.tracer.tensor_tracker[fake] = _Tracked(proxy, memory)
        return fake


def _owns_memory(node: Any) -> bool:
    """Return whether a node made the memory of its value, and no other node reads or writes that memory."""
    return node.op == "call_function" and not any(_shares_memory(other.target) for other in (node, *node.users))


def _shares_memory(target: Any) -> bool:
    return not isinstance(target, OpOverload) or _may_alias(target)


def _same_layout(one: Tensor, two: Tensor) -> bool:
    return one.dtype == two.dtype and one.stride() == two.stride()


def _shapes(plan: Plan, args: Any, kwargs: Any) -> Any:
    """Return what an operation would return, without numbers, on the device `meta`."""
    func, options = plan.kernel, kwargs
    if func is _TO_COPY and type(args[0]) in _NUMBERS:
        func, args, options = _aten.scalar_tensor.default, (0,), {**kwargs, "device": _META}
    elif plan.constructs:
        options = {**kwargs, "device": _META}
    elif "device" in kwargs:
        options = {key: value for key, value in kwargs.items() if key != "device"}
    return func(*args, **options) if plan.aliases else layouts.results(func, args, options)


def _result_device(plan: Plan, args: Any, options: Any, given: _Arguments) -> torch.device:
    asked, devices = options.get("device"), given.devices
    if len(devices) > 1 or options.get("pin_memory") or options.get("layout") not in _STRIDED:
        raise _NeedsTorchError
    if any(type(option) not in _ATOMS for option in options.values()):
        raise _NeedsTorchError
    if plan.constructs or (plan.target is _TO_COPY and type(args[0]) in _NUMBERS and "dtype" in options):
        if asked is not None and asked != _CPU:
            raise _NeedsTorchError
        return _CPU
    if plan.target in layouts.RUNNABLE and not (devices == {_CPU} and layouts.can_run(args)):
        raise _NeedsTorchError
    if (plan.writes or plan.reshapes) and not isinstance(args[0], FakeTensor):
        raise _NeedsTorchError
    if not devices or (asked is not None and asked not in devices):
        raise _NeedsTorchError
    if not devices.issuperset([leaf.device for leaf in given.constants]):
        raise _NeedsTorchError
    return next(iter(devices))


_STRIDED = {None, torch.strided}
_META = torch.device("meta")
