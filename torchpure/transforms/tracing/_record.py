"""Record the common operations of a traced program in one step, without torch's two modes.

torch asks three modes in turn about each operation, and flattens its arguments in each. Most operations need none of
that: their arguments are fake tensors and numbers, and one kernel gives the shapes of their results. Every other
operation goes through torch's modes.

Law: the program is the one that torch's modes would record, with `squeeze` in the place of `squeeze_`, and `add` in the
place of `add_` where no view of the changed tensor exists.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import traceback
from torch.fx.immutable_collections import immutable_list

from torchpure._torch import (
    DisableTorchDispatch,
    DisableTorchFunction,
    FakeTensor,
    OpOverload,
    ProxyTensor,
    meta_kernels,
)
from torchpure.transforms.engine import LightFakeMode, LightProxyMode, empty_like_memory, is_plain

from . import _layouts as layouts
from ._layer_layouts import has_layer_layout
from ._plans import Plan, is_composite, may_alias, plan_of
from ._run_on_zeros import RUNNABLE, can_run

_aten = torch.ops.aten
_TO_COPY = _aten._to_copy.default  # vmap calls it with a number, to make a tensor of it
_NUMBERS = frozenset({int, float, bool})
_CPU = torch.device("cpu")
_CONTAINERS = frozenset({list, tuple, immutable_list})
_ATOMS = frozenset({int, float, bool, str, type(None), torch.dtype, torch.layout, torch.memory_format, torch.device})


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
        rule = self.decomposition_table.get(func) or (func.decompose if is_composite(func) else None)
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
            try:
                out = _shapes(plan, values, kwargs)
            except NotImplementedError:  # no kernel for shapes: torch's modes say what is wrong
                return NotImplemented
            if plan.writes and (out.shape != args[0].shape or not torch.can_cast(out.dtype, args[0].dtype)):
                return NotImplemented
        if plan.writes and not plan.stays and _owns_memory(pairs[0][0]) and _same_layout(out, values[0]):
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
    return not isinstance(target, OpOverload) or may_alias(target)


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
    if plan.target in RUNNABLE and not (devices == {_CPU} and _can_find_layout(plan, args, options)):
        raise _NeedsTorchError
    if (plan.writes or plan.reshapes) and not isinstance(args[0], FakeTensor):
        raise _NeedsTorchError
    if not devices or (asked is not None and asked not in devices):
        raise _NeedsTorchError
    if not devices.issuperset([leaf.device for leaf in given.constants]):
        raise _NeedsTorchError
    return next(iter(devices))


def _can_find_layout(plan: Plan, args: Any, options: Any) -> bool:
    return can_run(args) or has_layer_layout(plan.target, args, options)


_STRIDED = {None, torch.strided}
_META = torch.device("meta")
