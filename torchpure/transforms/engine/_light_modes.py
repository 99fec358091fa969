"""torch's two tracing modes, without the import of torch.compile and sympy that their constructors make.

Both imports take a second or two. The modes need them for options of torch.compile and for symbolic shapes, and a
program of fixed shapes needs neither. What the short constructors leave out is made when somebody asks for it.
"""

from collections.abc import Sequence
from functools import cache
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from torchpure import _torch
from torchpure._torch import (
    DisableTorchDispatch,
    DisableTorchFunction,
    FakeTensor,
    FakeTensorConverter,
    FakeTensorMode,
    ProxyTensor,
    ProxyTorchDispatchMode,
    TorchDispatchMode,
    TorchDispatchModeKey,
    disable_current_modes,
    meta_kernels,
    track_tensor_tree,
)

_DEVICE = torch.ops.prim.device.default  # C++ asks each new tensor for its device
_KEYS: Any = TorchDispatchModeKey
_OPTIONAL = frozenset({"_dispatch_key"})  # attributes that torch asks for and that these modes do not have
_make_subclass: Any = _torch.make_subclass
_warn_on_data_pointer: Any = _torch.warn_on_data_pointer
_run_fake: Any = unwrap(FakeTensorMode.__torch_dispatch__)  # the wrappers count calls and import torch.compile
_run_proxy: Any = unwrap(ProxyTorchDispatchMode.__torch_dispatch__)


class LightFakeMode(FakeTensorMode):
    """`FakeTensorMode` for fixed shapes: it accepts constants among the arguments."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self._mode_key = _KEYS.FAKE
        self._attributes: dict[torch.device, dict[str, Any]] = {}
        self.fake_tensor_converter = FakeTensorConverter(copy_data=False, export=False)
        self.enter_stack = []
        self.in_kernel_invocation = False
        self.static_shapes, self.shape_env = True, None
        self.allow_fallback_kernels = self.allow_non_fake_inputs = True
        self.allow_meta = self._allow_unsafe_data_ptr_access = True
        self.propagate_real_tensors = False

    def __getattr__(self, name: str) -> Any:
        """Make what the constructor left out, by torch's constructor."""
        if name.startswith("__") or name in _OPTIONAL:
            raise AttributeError(name)
        with disable_current_modes(), DisableTorchFunction():  # the import must run no operation under modes
            full = FakeTensorMode(allow_fallback_kernels=True, allow_non_fake_inputs=True, static_shapes=True)
        return _take_missing(self, full, name)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute the shapes of an operation's results."""
        if func is _DEVICE:
            return args[0].fake_device
        return _run_fake(self, func, types, args, kwargs or {})

    def from_tensors(self, tensors: Sequence[Tensor]) -> list[FakeTensor]:
        """Return fake tensors of the same layouts; those of tensors that share memory share theirs."""
        storages: dict[int, torch.UntypedStorage] = {}
        with DisableTorchDispatch():
            return [
                self.wrap(_meta_tensor(leaf, storages), leaf.device) if is_plain(leaf) else self.from_tensor(leaf)
                for leaf in tensors
            ]

    def like(self, tensor: Tensor) -> FakeTensor:
        """Return a fake tensor of the same layout, with memory of its own."""
        with DisableTorchDispatch():
            return self.wrap(_meta_tensor(tensor, {}), tensor.device)

    def memory(self, fake: FakeTensor) -> Tensor:
        """Return a tensor on the device `meta` that shares the memory of a fake tensor."""
        with meta_kernels(self):
            empty = torch.empty(0, dtype=fake.dtype, device="meta")
            return empty.set_(fake.untyped_storage(), fake.storage_offset(), fake.shape, fake.stride())

    def alias(self, fake: FakeTensor) -> FakeTensor:
        """Return another fake tensor of the same layout and memory."""
        with meta_kernels(self):
            return self.wrap(fake, fake.fake_device)

    def wrap(self, memory: Tensor, device: torch.device) -> FakeTensor:
        """Return a fake tensor on a device, with the layout and memory of a tensor on the device `meta`."""
        known = self._attributes.get(device)
        if known is None:
            made = FakeTensor(self, memory, device)
            self._attributes[device] = dict(vars(made))
            return made
        made = _make_subclass(FakeTensor, memory, False, dispatch_device=True, device_for_backend_keys=device)
        _warn_on_data_pointer(made)
        vars(made).update(known)
        return made


class LightProxyMode(ProxyTorchDispatchMode):
    """`ProxyTorchDispatchMode` for fake tensors of fixed shapes."""

    def __init__(self, tracer: Any, table: Any) -> None:
        TorchDispatchMode.__init__(self)
        self._mode_key = _KEYS.PROXY
        self.tracer, self.decomposition_table = tracer, table
        self.tracing_mode = "fake"
        self.enter_stack = []
        self.pre_dispatch = self._allow_fake_constant = False
        self._error_on_data_dependent_ops = True
        self.decomp_layers = 0

    def __getattr__(self, name: str) -> Any:
        """Make what the constructor left out, by torch's constructor."""
        if name.startswith("__") or name in _OPTIONAL:
            raise AttributeError(name)
        with disable_current_modes(), DisableTorchFunction():
            full = ProxyTorchDispatchMode(self.tracer, "fake")
        return _take_missing(self, full, name)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record an operation, as torch does."""
        if func is _DEVICE:
            return func(*args)
        _import_torch_compile()
        return _run_proxy(self, func, types, args, kwargs)


@cache
def _import_torch_compile() -> None:
    """Import torch.compile from its beginning, as every other thread does.

    torch's modes import it from a part in the middle. If another thread imports it at that moment, each waits for the
    other's half, and Python gives both a module that is not complete.
    """
    torch.compiler.disable(len)


def _meta_tensor(tensor: Tensor, storages: dict[int, torch.UntypedStorage]) -> Tensor:
    """Return a tensor on the device `meta` of the same layout; `storages` holds its memory by that of the tensor."""
    storage = tensor.untyped_storage()
    memory = storages.get(storage._cdata)
    if memory is None:
        memory = torch.UntypedStorage(storage.nbytes(), device="meta")
        storages[storage._cdata] = memory
    empty = torch.empty(0, dtype=tensor.dtype, device="meta")
    return empty.set_(memory, tensor.storage_offset(), tensor.shape, tensor.stride())


def empty_like_memory(tensor: Tensor) -> Tensor:
    """Return a tensor on the device `meta` of the same layout."""
    with DisableTorchDispatch():
        return _meta_tensor(tensor, {})


def is_plain(tensor: Tensor) -> bool:
    """Return whether sizes, strides, dtype and device describe a tensor of real numbers in memory."""
    return (
        type(tensor) in {Tensor, Parameter}
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or tensor.requires_grad)
    )


def track_fakes(tracer: Any, values: Any, proxy: Any) -> Any:
    """Let fake tensors stand for a proxy, or a sequence of them for its elements, and return them."""
    first = next((value for value in values if isinstance(value, FakeTensor)), None) if _is_list(values) else values
    if first is not None and not isinstance(first.fake_mode, LightFakeMode):
        return track_tensor_tree(values, proxy, constant=None, tracer=tracer)
    if _is_list(values):
        for index, value in enumerate(values):
            track_fakes(tracer, value, proxy[index])
    proxy.node.meta["val"] = _snapshot(values)
    if isinstance(values, FakeTensor):
        tracer.tensor_tracker[values] = ProxyTensor(proxy, None)
    return values


def _is_list(values: Any) -> bool:
    return isinstance(values, tuple | list)


def _snapshot(values: Any) -> Any:
    if _is_list(values):
        return tuple(map(_snapshot, values))
    return values.fake_mode.alias(values)


def _take_missing(mode: Any, full: Any, name: str) -> Any:
    for key, value in vars(full).items():
        vars(mode).setdefault(key, value)
    if name not in vars(mode):
        raise AttributeError(f"{type(mode).__name__} has no attribute {name!r}")
    return vars(mode)[name]
