"""What is relied on of torch's levels, of its forward mode and of its reverse mode."""

import torch
from contracts import called, relied_on
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from torchpure._torch import (
    AccumulateGrad,
    DispatchKey,
    DispatchKeySet,
    ExcludeDispatchKeyGuard,
    SelectiveCheckpointMode,
    checkpoint_body,
    custom_function_call,
    eager_transforms,
    enter_dual_level,
    exit_dual_level,
    forward_ad,
    functorch,
    get_sequence_nr,
    grad_preprocess,
    is_fwd_grad_enabled,
    lazy_load_decompositions,
    make_dual,
    maybe_load_decompositions,
    run_backward,
    set_fwd_grad_enabled,
    set_grad_enabled,
    temporarily_clear_interpreter_stack,
    unpack_dual,
)

X = torch.tensor([1.0, 2.0, 3.0])
called("checkpoint_body", "function", "tensor", use_reentrant=False, preserve_rng_state=False, context_fn="contexts")
called("custom_function_call", "function", "tensor")
called("grad_preprocess", ("tensor",), create_graph=True, need_graph=True)
called("lazy_load_decompositions")
called("maybe_load_decompositions")
called("set_fwd_grad_enabled", True)
called("temporarily_clear_interpreter_stack")


@relied_on(
    "functorch.vmap_increment_nesting", "functorch.vmap_decrement_nesting", "functorch.add_batch_dim",
    "functorch.remove_batch_dim", "functorch.is_batchedtensor", "functorch.is_functorch_wrapped_tensor",
    "functorch.maybe_get_bdim", "functorch.maybe_get_level", "functorch.maybe_current_level",
    "functorch.get_unwrapped",
)  # fmt: skip
def a_vmap_is_opened_and_closed():
    lazy_load_decompositions()
    assert functorch.maybe_current_level() is None
    level = functorch.vmap_increment_nesting(3, "error")
    try:
        assert functorch.maybe_current_level() == level
        member = functorch.add_batch_dim(X, 0, level)
        assert member.shape == () and functorch.is_batchedtensor(member)
        assert functorch.is_functorch_wrapped_tensor(member) and not functorch.is_functorch_wrapped_tensor(X)
        assert functorch.maybe_get_bdim(member) == 0 and functorch.maybe_get_level(member) == level
        assert torch.equal(functorch.get_unwrapped(member), X)
        doubled = functorch.remove_batch_dim(member * 2, level, 3, 0)
    finally:
        functorch.vmap_decrement_nesting()
    assert torch.equal(doubled, X * 2) and not functorch.is_functorch_wrapped_tensor(doubled)


@relied_on(
    "functorch.peek_interpreter_stack", "functorch.get_interpreter_stack", "functorch.TransformType",
    "functorch.CVmapInterpreterPtr", "temporarily_clear_interpreter_stack", "lazy_load_decompositions",
)  # fmt: skip
def the_stack_of_levels_is_read():
    lazy_load_decompositions()
    assert functorch.peek_interpreter_stack() is None and not functorch.get_interpreter_stack()
    level = functorch.vmap_increment_nesting(3, "error")
    try:
        (one,) = functorch.get_interpreter_stack()
        assert one.key() == functorch.peek_interpreter_stack().key() == functorch.TransformType.Vmap
        assert one.level() == level and functorch.CVmapInterpreterPtr(one).batchSize() == 3
        with temporarily_clear_interpreter_stack():
            assert functorch.peek_interpreter_stack() is None
        assert functorch.peek_interpreter_stack() is not None
    finally:
        functorch.vmap_decrement_nesting()
    kinds = functorch.TransformType
    assert len({kinds.Vmap, kinds.Grad, kinds.Jvp}) == 3


@relied_on("ExcludeDispatchKeyGuard")
def operations_pass_by_levels():
    level = functorch.grad_increment_nesting()
    try:
        keys = DispatchKeySet(DispatchKey.FuncTorchDynamicLayerFrontMode)
        assert functorch.is_functorch_wrapped_tensor(X + X)
        with ExcludeDispatchKeyGuard(keys.add(DispatchKey.FuncTorchDynamicLayerBackMode)):
            assert not functorch.is_functorch_wrapped_tensor(X + X)
        assert functorch.maybe_current_level() == level
    finally:
        functorch.grad_decrement_nesting()


@relied_on("functorch.pop_dynamic_layer_stack", "functorch.push_dynamic_layer_stack")
def levels_are_left_for_a_while():
    lazy_load_decompositions()
    level = functorch.vmap_increment_nesting(3, "error")
    try:
        member = functorch.add_batch_dim(X, 0, level)
        layer = functorch.pop_dynamic_layer_stack()
        assert functorch.peek_interpreter_stack() is None and torch.equal(X + X, 2 * X)
        functorch.push_dynamic_layer_stack(layer)
        assert functorch.maybe_current_level() == level and (member * 2).shape == ()
    finally:
        functorch.vmap_decrement_nesting()


@relied_on(
    "functorch.grad_increment_nesting", "functorch.grad_decrement_nesting", "functorch.wrap_for_grad",
    "functorch.unwrap_for_grad", "functorch.is_gradtrackingtensor", "functorch.get_inplace_requires_grad_allowed",
    "functorch.set_inplace_requires_grad_allowed", "run_backward",
)  # fmt: skip
def a_gradient_is_opened_and_closed():
    level = functorch.grad_increment_nesting()
    try:
        assert functorch.get_inplace_requires_grad_allowed() is False
        functorch.set_inplace_requires_grad_allowed(True)
        own = functorch.wrap_for_grad(X, level).requires_grad_()
        functorch.set_inplace_requires_grad_allowed(False)
        assert functorch.is_gradtrackingtensor(own) and not X.requires_grad
        value = (own**2).sum()
        (grad,) = run_backward((value,), (torch.ones_like(value),), True, True, (own,), True, False)
        grad, value = functorch.unwrap_for_grad(grad, level), functorch.unwrap_for_grad(value, level)
    finally:
        functorch.grad_decrement_nesting()
    assert torch.equal(grad, 2 * X) and value == 14
    assert functorch.maybe_get_level(own) < 0  # that of a level which is closed


@relied_on(
    "functorch.jvp_increment_nesting", "functorch.jvp_decrement_nesting", "make_dual", "unpack_dual",
    "enter_dual_level", "exit_dual_level", "forward_ad", "maybe_load_decompositions",
)  # fmt: skip
def a_tangent_is_pushed():
    maybe_load_decompositions()
    assert forward_ad._current_level == -1
    forward = forward_ad._current_level = enter_dual_level()
    level = functorch.jvp_increment_nesting()
    try:
        assert forward == 0
        primal, tangent = unpack_dual(make_dual(X, torch.ones(3), level=forward) ** 2, level=forward)
        primal, tangent = functorch.unwrap_for_grad(primal, level), functorch.unwrap_for_grad(tangent, level)
    finally:
        functorch.jvp_decrement_nesting()
        exit_dual_level(level=forward)
        forward_ad._current_level -= 1
    assert torch.equal(primal, X**2) and torch.equal(tangent, 2 * X)
    with forward_ad.dual_level():
        assert forward_ad._current_level == 0  # torch's own functions keep it too
    assert forward_ad._current_level == -1


@relied_on("set_fwd_grad_enabled", "is_fwd_grad_enabled")
def forward_derivatives_are_switched_off():
    with set_fwd_grad_enabled(False):
        assert not is_fwd_grad_enabled()
    assert is_fwd_grad_enabled()


@relied_on("eager_transforms")
def jvps_are_counted():
    """torch's `jvp` opens the forward level where this count is 0, and leaves it alone elsewhere."""
    assert eager_transforms.JVP_NESTING == 0
    seen = []
    torch.func.jvp(lambda x: (seen.append(eager_transforms.JVP_NESTING), x)[1], (X,), (X,))
    assert seen == [1] and eager_transforms.JVP_NESTING == 0


@relied_on("AccumulateGrad")
def leaves_of_a_graph_are_known():
    own = X.clone().requires_grad_()
    ((node, _), *_) = (own * 2).grad_fn.next_functions
    assert type(node) is AccumulateGrad and node.variable is own


@relied_on("get_sequence_nr")
def operations_of_a_graph_are_numbered():
    own = X.clone().requires_grad_()
    before = own * 2
    now = get_sequence_nr()
    assert before.grad_fn._sequence_nr() < now <= (own * 2).grad_fn._sequence_nr()


class _Double(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


@relied_on("custom_function_call")
def modes_see_an_autograd_function():
    """Under a transform it is an operation whose first argument is the function."""
    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is custom_function_call:
                seen.append(args[0])
            return func(*args, **(kwargs or {}))

    def under(x: Tensor) -> Tensor:
        with Mode():
            return _Double.apply(x)

    assert torch.equal(torch.func.vmap(under)(X), X * 2)
    assert seen == [_Double]


@relied_on("grad_preprocess")
def the_functional_api_cuts_off_its_inputs_there():
    own = X.clone().requires_grad_()
    (cut,) = grad_preprocess((own,), create_graph=False, need_graph=True)
    assert not cut.grad_fn and cut.requires_grad and cut is not own
    assert grad_preprocess.__name__ in torch.autograd.functional.vjp.__code__.co_names
    assert "detach" in grad_preprocess.__code__.co_names


@relied_on("checkpoint_body", "SelectiveCheckpointMode")
def checkpoint_runs_what_an_attribute_of_its_body_holds():
    ours = checkpoint_body.__dict__["__dynamo_disable"]
    checkpoint_body.__dict__["__dynamo_disable"] = lambda *args, **options: (args, options)
    try:
        assert checkpoint(torch.sin, X, use_reentrant=False) == ((torch.sin, X), {"use_reentrant": False})
    finally:
        checkpoint_body.__dict__["__dynamo_disable"] = ours
    assert torch.equal(checkpoint_body(torch.sin, X, use_reentrant=False), X.sin())
    assert isinstance(create_selective_checkpoint_contexts([])[0], SelectiveCheckpointMode)


@relied_on("DispatchKeySet")
def a_kernel_of_one_dispatch_key_can_be_called():
    linear = torch.ops.aten.linear.default
    with torch.autocast("cpu", torch.bfloat16):
        assert linear.redispatch(DispatchKeySet(DispatchKey.AutocastCPU), X, X[None]).dtype == torch.bfloat16
    kernel = torch.library.get_kernel("aten::_efficientzerotensor", "CPU")
    zeros = kernel.call_boxed(DispatchKeySet(DispatchKey.CPU), [], dtype=torch.float32)
    assert zeros._is_zerotensor() and zeros.dtype == torch.float32


@relied_on("set_grad_enabled")
def blocks_set_the_grad_mode_by_an_operation_that_modes_see():
    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append((func, args))
            return func(*args, **(kwargs or {}))

    seen = []
    with Seen(), torch.no_grad():
        assert seen == [(set_grad_enabled, (False,))] and not torch.is_grad_enabled()
    assert seen == [(set_grad_enabled, (False,)), (set_grad_enabled, (True,))] and torch.is_grad_enabled()
