"""Calls of torch's autograd inside a function that is differentiated.

Example: `tp.grad(lambda x: torch.autograd.grad(f(x), x)[0].sum())`. Without `create_graph=True` torch returns
constants, and the outer derivative is silently zero. Here `create_graph=True` is added. What has no right derivative is
refused: `backward`, which writes to `.grad`; `torch.autograd.functional` without a graph, which detaches its inputs;
`torch.func.linearize`, whose program holds the numbers of another call.

`requires_grad_` has no meaning inside a level of torch.func, and torch refuses it there. Hooks of modules call it,
so it does nothing in a module. A later call of `torch.autograd.grad` raises an error.

Backward hooks act, or are refused. Under vmap and in forward mode a tensor has no node of plain autograd, so torch
leaves the hooks of modules out, and the gradient is silently another one. Full backward hooks of modules need an
autograd.Function that torch.func cannot follow.
"""

import copy
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import functional
from torch.nn.modules import module
from torch.utils import hooks

from torchpure._torch import grad_preprocess, len_torch_dispatch_stack, tensor
from torchpure.errors import TransformError
from torchpure.transforms.context import active_resumables, current
from torchpure.transforms.engine import (
    OUTERMOST,
    depends_on,
    functorch,
    graph_leaves,
    innermost,
    is_differentiated,
    level_kinds,
    user_line,
)

from ._override import Override, Where

_linearize: Any = torch.func.linearize
NESTED_CONSTANT = "nested tensor without a gradient inside of one"


def _is_differentiated(outputs: Iterable[Any]) -> bool:
    """Return whether a derivative through one of these may be computed; inside a grad level always, to be safe."""
    if functorch.TransformType.Grad in level_kinds():
        return True
    variables = OUTERMOST.variables
    return variables is not None and any(
        not isinstance(leaf, Tensor) or depends_on(variables, innermost(leaf)) for leaf in outputs
    )


def _with_graph(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Add `create_graph=True` to `torch.autograd.grad`, unless it runs under `no_grad`.

    Raises:
        RuntimeError: it maps over a batch of seeds, in a level of torch.func.
    """
    outputs, inputs = args[:2]
    if functorch.peek_interpreter_stack() is not None and (kwargs.get("is_grads_batched") or any(args[7:8])):
        raise RuntimeError("is_grads_batched inside of a transform")  # torch maps constants there
    seeds = kwargs.get("grad_outputs", args[2] if len(args) > 2 else None)  # a derivative may go through these alone
    followed = [*_as_list(outputs), *_as_list(seeds)]
    if kwargs.get("create_graph") or not torch.is_grad_enabled() or not _is_differentiated(followed):
        return args, kwargs
    if _caller_of(torch.autograd.grad) is not functional.__dict__:
        return args, {**kwargs, "create_graph": True, "retain_graph": True}
    given = set(map(id, inputs))
    leaves = [leaf for output in outputs if output.grad_fn is not None for leaf in graph_leaves(output.grad_fn)]
    if any(id(leaf) not in given for leaf in leaves):
        raise RuntimeError("torch.autograd.functional cuts off what it captures")
    return args, kwargs


def _as_list(value: Any) -> list[Any]:
    """Return the outputs or seeds of a nested gradient, one or several, without those that are None."""
    given = value if isinstance(value, list | tuple) else [value]
    return [leaf for leaf in given if leaf is not None]


def _caller_of(function: Any) -> Any:
    """Return the globals of the caller of a function that is running."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame and frame.f_back.f_globals


def _no_backward(args: Any, kwargs: Any) -> tuple[Any, Any]:
    outputs = (args[0],) if isinstance(args[0], Tensor) else args[0]
    variables = OUTERMOST.variables or []
    if any(isinstance(leaf, Tensor) and depends_on(variables, leaf) for leaf in outputs):
        raise RuntimeError("backward() called inside of a gradient")
    return args, kwargs


def _no_detach_in_functional(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse a detach by `torch.autograd.functional` of a tensor that is differentiated; other detaches are meant."""
    code = sys._getframe(2).f_code
    if code is grad_preprocess.__code__ and args[0].requires_grad and _is_differentiated(args[:1]):
        raise RuntimeError("torch.autograd.functional cuts off what it is given")
    return args, kwargs


def _no_deepcopy(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse a copy of a variable: torch copies it as a new leaf, and the derivative is lost."""
    if any(args[0] is leaf for leaf in OUTERMOST.variables or ()):
        raise RuntimeError("Cannot access storage of a variable")
    return args, kwargs


def _no_copy(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse `copy.copy` of a tensor that is differentiated: torch makes a new leaf, and the derivative is lost."""
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_globals is tensor.__dict__:
        frame = frame.f_back
    if frame is not None and frame.f_globals is copy.__dict__ and is_differentiated(args[0]):
        raise RuntimeError("Cannot access storage of a variable")
    return args, kwargs


def _no_linearize(args: Any, kwargs: Any) -> tuple[Any, Any]:
    frame: Any = sys._getframe(2)
    linearizes = _linearize.__code__ in (frame.f_code, frame.f_back and frame.f_back.f_code)
    derivatives = {functorch.TransformType.Grad, functorch.TransformType.Jvp}
    if linearizes and (OUTERMOST.variables is not None or derivatives & set(level_kinds())):
        raise RuntimeError("torch.func.linearize called inside of a derivative")
    return args, kwargs


def _requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    refuse_nested_copies(sys._getframe(2))
    ignored = requires_grad and active_resumables() and functorch.peek_interpreter_stack() is not None
    if ignored and not functorch.get_inplace_requires_grad_allowed():
        return self
    return self.requires_grad_(requires_grad)


def refuse_nested_copies(frame: Any) -> None:
    """Refuse a call of `torch.nested.nested_tensor` with variables: it copies their numbers."""
    if frame is None or frame.f_code is not torch.nested.nested_tensor.__code__:
        return
    given = frame.f_locals.get("list_of_tensors", frame.f_locals["tensor_list"])
    if any(isinstance(leaf, Tensor) and is_differentiated(leaf) for leaf in given):
        raise TransformError(
            f"torch.nested.nested_tensor{user_line()} copies the numbers of a tensor that is differentiated: the "
            "derivative would be lost. Use torch.nested.as_nested_tensor"
        )


def _look_for_copies(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Ask for a run under `NestedCopies` where a nested tensor without a gradient becomes a usual tensor again.

    It may be a constant, or a copy by `torch.nested.nested_tensor`, whose call no function mode sees.
    """
    leaf = args[0] if args else kwargs.get("input")
    is_constant = isinstance(leaf, Tensor) and leaf.is_nested and not leaf.requires_grad
    if is_constant and OUTERMOST.variables is not None and not len_torch_dispatch_stack():
        raise RuntimeError(NESTED_CONSTANT)
    return args, kwargs


def _no_full_hook(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse a full backward hook, which reads `requires_grad` of inputs and outputs."""
    frame = sys._getframe(2)
    if frame.f_globals is hooks.__dict__ and _is_followed_by_transform(args[0]):
        _refuse(frame.f_locals["self"].module)
    return args, kwargs


def _no_hook_without_node(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse a backward hook of the older form, which reads `grad_fn` of an output, if there is none."""
    frame = sys._getframe(2)
    is_call = frame.f_globals is module.__dict__ and frame.f_code.co_name == "inner"  # inside of Module._call_impl
    if is_call and args[0].grad_fn is None and _is_followed_by_transform(args[0]):
        _refuse(frame.f_locals["self"])
    return args, kwargs


def _refuse(owner: nn.Module) -> None:
    raise RuntimeError(f"backward hooks of {type(owner).__name__} inside of a transform")


def _is_followed_by_transform(leaf: Tensor) -> bool:
    levels = functorch.peek_interpreter_stack() is not None
    return levels and torch.is_grad_enabled() and is_differentiated(leaf)


def _no_hook_from_outside(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse a hook on a tensor that a body did not compute: each run of the body would add one more."""
    if current.body is not None and args[0].requires_grad and not current.body.computed(args[0]):
        raise RuntimeError("hook on a tensor from outside of a body")
    return args, kwargs


def _no_accumulation(args: Any, kwargs: Any) -> tuple[Any, Any]:
    raise RuntimeError("hook after the accumulation into .grad inside of a transform")


_EXITS = [  # from a nested tensor to others
    *(torch.nested.to_padded_tensor, Tensor.to_padded_tensor, Tensor.values, torch.unbind, Tensor.unbind),
    *(torch.select, Tensor.select),
]
OVERRIDES = (
    Override([Tensor.requires_grad.__get__], Where.INTERCEPTED, _no_full_hook),  # type: ignore[attr-defined]
    Override([Tensor.grad_fn.__get__], Where.INTERCEPTED, _no_hook_without_node),  # type: ignore[attr-defined]
    Override([Tensor.register_hook], Where.INTERCEPTED, _no_hook_from_outside),
    Override([Tensor.register_post_accumulate_grad_hook], Where.INTERCEPTED, _no_accumulation),
    Override([Tensor.requires_grad_], Where.ALWAYS | Where.IN_TRANSFORM, _requires_grad_),
    Override(_EXITS, Where.INTERCEPTED, _look_for_copies),
    Override([torch.autograd.grad], Where.INTERCEPTED, _with_graph),
    Override([torch.autograd.backward, Tensor.backward], Where.INTERCEPTED, _no_backward),
    Override([Tensor.detach], Where.INTERCEPTED, _no_detach_in_functional),
    Override([Tensor.__deepcopy__], Where.INTERCEPTED, _no_deepcopy),
    Override([Tensor.untyped_storage], Where.INTERCEPTED, _no_copy),
    Override([Tensor.new_empty], Where.INTERCEPTED, _no_linearize),
)
