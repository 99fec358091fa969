"""What is relied on of torch's modes, of its tracer and of its operators."""

import operator

import torch
from contracts import called, relied_on
from torch import Tensor
from torch.fx import Graph
from torch.overrides import TorchFunctionMode

from torchpure._torch import (
    AutoDispatchBelowAutograd,
    DisableTorchDispatch,
    DisableTorchFunction,
    DispatchKey,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorConverter,
    FakeTensorMode,
    HigherOrderOperator,
    LazyGraphModule,
    MakefxTracer,
    OpOverload,
    OpOverloadPacket,
    ProxyTensor,
    ProxyTorchDispatchMode,
    PythonKeyTracer,
    TensorGuards,
    TorchDispatchMode,
    TorchDispatchModeKey,
    TracingContext,
    autocast_supported_devices,
    core_aten_decompositions,
    detect_fake_mode,
    disable_autocast_cache,
    disable_current_modes,
    disable_fake_tensor_cache,
    disable_proxy_modes_tracing,
    get_current_function_mode_stack,
    get_decompositions,
    get_dispatch_mode,
    get_eval_frame_callback,
    get_proxy_mode,
    get_proxy_slot,
    has_kernel,
    is_any_autocast_enabled,
    is_impure,
    len_torch_dispatch_stack,
    len_torch_function_stack,
    make_fx,
    make_subclass,
    meta_kernels,
    mode_at,
    pop_mode,
    push_mode,
    reenter_make_fx,
    set_make_fx_tracer,
    tracing,
    track_tensor_tree,
    warn_on_data_pointer,
)

X = torch.tensor([1.0, 2.0, 3.0])
ATEN = torch.ops.aten
TRACER = {
    "decomposition_table": {}, "tracing_mode": "fake", "_allow_non_fake_inputs": True, "pre_dispatch": False,
    "record_module_stack": False, "_allow_fake_constant": False, "_error_on_data_dependent_ops": True,
    "parent_tracer": None,
}  # fmt: skip
called("core_aten_decompositions")
called("detect_fake_mode", ("tensor",))
called("disable_autocast_cache")
called("disable_current_modes")
called("disable_fake_tensor_cache", "mode")
called("disable_proxy_modes_tracing")
called("get_current_function_mode_stack")
called("get_decompositions", ["operator"])
called("get_proxy_mode")
called("get_proxy_slot", "tensor", "tracer", None)
called("meta_kernels", "mode")
called("FakeTensorConverter", copy_data=False, export=False)
called("ProxyTensor", "proxy", None)
called("is_impure", "operator", args=(), kwargs={})
called("make_fx", "function", tracing_mode="fake")
called("mode_at", 0)
called("pop_mode")
called("push_mode", "mode")
called("reenter_make_fx", "function")
called("set_make_fx_tracer", "tracer")
called("track_tensor_tree", ("tensor",), "proxy", constant=None, tracer="tracer")
called("tracing", "context")
called("FakeTensorMode", allow_fallback_kernels=True, allow_non_fake_inputs=True, shape_env=None, static_shapes=True)
called("MakefxTracer", **TRACER)
called("TracingContext", "mode")


class _Through(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen = func
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@relied_on("TorchDispatchMode", "len_torch_dispatch_stack", "disable_current_modes", "OpOverload", "OpOverloadPacket")
def modes_see_operators():
    assert len_torch_dispatch_stack() == 0
    with _Through() as mode:
        assert len_torch_dispatch_stack() == 1
        X.sin()
        with disable_current_modes():
            assert len_torch_dispatch_stack() == 0
    assert mode.seen is ATEN.sin.default and isinstance(mode.seen, OpOverload)
    assert mode.seen.overloadpacket is ATEN.sin and isinstance(ATEN.sin, OpOverloadPacket)


@relied_on("get_dispatch_mode", "TorchDispatchModeKey")
def a_tracer_for_shapes_is_found():
    assert get_dispatch_mode(TorchDispatchModeKey.FAKE) is None
    with FakeTensorMode() as mode:
        assert get_dispatch_mode(TorchDispatchModeKey.FAKE) is mode


@relied_on("len_torch_function_stack", "mode_at", "get_current_function_mode_stack", "push_mode", "pop_mode")
def modes_of_functions_are_handed_to_another_thread():
    mode = _Functions()
    push_mode(mode)
    try:
        assert len_torch_function_stack() == 1 and mode_at(0) is mode and get_current_function_mode_stack() == [mode]
    finally:
        assert pop_mode() is mode
    assert len_torch_function_stack() == 0


@relied_on("DisableTorchFunction")
def looks_pass_by_modes():
    class Refuses(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            raise AssertionError(func)

    with Refuses(), DisableTorchFunction():
        assert X.shape == (3,) and X._version == 0


@relied_on("is_any_autocast_enabled", "autocast_supported_devices")
def autocast_is_noticed():
    assert not is_any_autocast_enabled() and "cpu" in autocast_supported_devices()
    with torch.autocast("cpu"):
        assert is_any_autocast_enabled()


@relied_on("FakeTensor", "FakeTensorMode", "detect_fake_mode", "disable_fake_tensor_cache")
def fake_tensors_have_shapes_alone():
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = mode.from_tensor(X, static_shapes=True)
    assert isinstance(fake, FakeTensor) and fake.fake_mode is mode and detect_fake_mode((fake,)) is mode
    with mode, disable_fake_tensor_cache(mode):
        assert (fake + X).shape == (3,)


@relied_on("DynamicOutputShapeException")
def a_size_that_depends_on_numbers_is_refused():
    mode = FakeTensorMode()
    try:
        with mode:
            mode.from_tensor(X).nonzero()
    except DynamicOutputShapeException as error:
        assert error.func is ATEN.nonzero.default
    else:
        raise AssertionError("nonzero of a fake tensor has a size")


@relied_on("get_proxy_mode", "get_proxy_slot", "disable_proxy_modes_tracing", "make_fx", "ProxyTorchDispatchMode")
def a_tracer_at_work_is_found():
    def traced(x: Tensor) -> Tensor:
        mode = get_proxy_mode()
        assert isinstance(mode, ProxyTorchDispatchMode)
        assert get_proxy_slot(x, mode.tracer, None) is not None
        with disable_proxy_modes_tracing():
            assert get_proxy_mode() is None
            new = torch.empty_like(x)
        assert get_proxy_slot(new, mode.tracer, None) is None
        return x.sin()

    assert get_proxy_mode() is None
    program = make_fx(traced, tracing_mode="fake")(X)
    assert [node.target for node in program.graph.nodes if node.op == "call_function"] == [ATEN.sin.default]


@relied_on("MakefxTracer", "PythonKeyTracer", "set_make_fx_tracer", "disable_autocast_cache",
           "ProxyTensor", "LazyGraphModule")  # fmt: skip
def a_tracer_is_made_of_torchs_parts():
    """What the tracer of `transforms` does, in the fewest steps."""
    tracer = MakefxTracer(**TRACER)
    before = tracer._checkpoint_modes()
    try:
        tracer.fx_tracer = names = PythonKeyTracer()
        tracer.fake_tensor_mode = FakeTensorMode(allow_non_fake_inputs=True, static_shapes=True)
        tracer.proxy_mode = ProxyTorchDispatchMode(names, "fake")
        fake = tracer.fake_tensor_mode.from_tensor(X)

        with tracer.fake_tensor_mode, tracer.proxy_mode, disable_autocast_cache(), set_make_fx_tracer(tracer):
            names.root, names.graph, names.tensor_attrs = torch.nn.Module(), Graph(tracer_cls=PythonKeyTracer), {}
            names.tensor_tracker[fake] = ProxyTensor(names.create_proxy("placeholder", "arg0_1", (), {}), None)
            sine = names.unwrap_proxy(torch.sin(fake))
            names.create_node("output", "output", (names.create_arg((sine,)),), {})
    finally:
        tracer._restore_modes(*before)
    program = LazyGraphModule(names.root, names.graph, "Program")
    assert [node.target for node in names.graph.nodes if node.op == "call_function"] == [ATEN.sin.default]
    assert torch.equal(program(X)[0], X.sin()) and "sin" in program.code
    assert names.tensor_tracker[fake].constant is None and names.tensor_tracker.get(X) is None
    assert isinstance(names.root._buffers, dict) and names.get_fresh_qualname("_tensor_constant")
    assert {"_init_modes_from_parent", "_make_sub_tracer", "_trace_inner"} <= set(dir(MakefxTracer))


@relied_on("meta_kernels", "DisableTorchDispatch", "has_kernel", "make_subclass", "warn_on_data_pointer",
           "FakeTensorConverter")  # fmt: skip
def fake_tensors_are_made_of_tensors_on_the_device_meta():
    mode = FakeTensorMode()
    memory = torch.empty(3, device="meta")
    made = make_subclass(FakeTensor, memory, False, dispatch_device=True, device_for_backend_keys=X.device)
    warn_on_data_pointer(made)
    vars(made).update(vars(FakeTensor(mode, memory, X.device)))
    assert made.fake_device == X.device and made.fake_mode is mode and made.constant is None
    assert made.untyped_storage()._cdata == memory.untyped_storage()._cdata
    with meta_kernels(mode), DisableTorchFunction():
        Tensor.unsqueeze_(made, 0)
    assert (made.shape, memory.shape) == ((1, 3), (3,))
    with _Through() as seen, DisableTorchDispatch():
        X.sin()
    assert not vars(seen).get("seen") and not vars(FakeTensorConverter(copy_data=False, export=False))["export"]
    assert has_kernel("aten::sin", DispatchKey.Meta) and not has_kernel(
        "aten::sin", DispatchKey.CompositeImplicitAutograd
    )


@relied_on("get_eval_frame_callback")
def torch_compile_is_noticed():
    assert get_eval_frame_callback() is None


class _Twice(HigherOrderOperator):
    def __call__(self, fn, x):
        return super().__call__(fn, x)


@relied_on("HigherOrderOperator", "DispatchKey", "AutoDispatchBelowAutograd", "reenter_make_fx", "track_tensor_tree")
def an_operation_may_take_functions():
    """It is one node of a program, and the function is a module of its own in it."""
    twice = _Twice("torchpure_contract_of_twice")

    def below(fn, x):
        with AutoDispatchBelowAutograd():
            return twice(fn, x)

    def record(mode, fn, x):
        with disable_proxy_modes_tracing():
            body = reenter_make_fx(fn)(x)
        mode.tracer.root.register_module("body", body)
        args = (body, mode.tracer.unwrap_proxy(x))
        proxy = mode.tracer.create_proxy("call_function", twice, args, {}, name="twice")
        with disable_proxy_modes_tracing():
            values = (torch.empty_like(x),)
        return track_tensor_tree(values, proxy, constant=None, tracer=mode.tracer)

    twice.py_impl(DispatchKey.CompositeExplicitAutograd)(lambda fn, x: (fn(fn(x)),))
    twice.py_impl(DispatchKey.Autograd)(below)
    twice.py_impl(FakeTensorMode)(lambda mode, fn, x: (torch.empty_like(x),))
    twice.py_impl(ProxyTorchDispatchMode)(record)
    assert torch.equal(twice(torch.sin, X)[0], X.sin().sin())
    program = make_fx(lambda x: twice(torch.sin, x)[0], tracing_mode="fake")(X)
    (node,) = (node for node in program.graph.nodes if node.target is twice)
    assert "sin" in program.get_submodule(node.args[0].target).code
    assert node.target.name() == "torchpure_contract_of_twice"


@relied_on("TracingContext", "tracing")
def a_compiler_leaves_what_it_found_out():
    context = TracingContext(FakeTensorMode())
    assert context.fw_metadata is None
    with tracing(context):
        assert TracingContext.get() is context


@relied_on("is_impure")
def effects_are_known():
    assert is_impure(ATEN.add_.Tensor, args=(X, X), kwargs={})
    assert not is_impure(ATEN.add.Tensor, args=(X, X), kwargs={})
    assert not is_impure(operator.getitem, args=(X, 0), kwargs={})


@relied_on("core_aten_decompositions", "get_decompositions")
def operators_decompose():
    assert ATEN.mse_loss.default in get_decompositions([ATEN.mse_loss])
    assert all(callable(rule) for rule in core_aten_decompositions().values())


@relied_on("TensorGuards")
def guards_tell_tensors_of_another_kind():
    guards = TensorGuards(X, dynamic_dims_sizes=[[3]], dynamic_dims_strides=[[1]])
    assert guards.check(X + 1) and not guards.check(X.double()) and not guards.check(torch.ones(4))
