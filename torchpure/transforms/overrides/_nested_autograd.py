"""Calls of torch's autograd that the user makes inside of a function which is differentiated.

torch gives constants there unless it is asked for a graph, and the derivative through them would silently be zero. So
the mode of `_replacing`, which is on where the code of the function names torch's autograd, asks for the graph. What
cannot be followed is refused: `backward`, which writes to `.grad`; `torch.autograd.functional` without a graph, which
cuts off what it is given; `torch.func.linearize`, whose program holds numbers of another call.
"""

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import functional

from torchpure._torch import grad_preprocess
from torchpure.transforms.engine import LEVEL, functorch, kinds, leaves_of_graph, reaches

from ._override import Override, Where

_linearize: Any = torch.func.linearize


def _differentiating(outputs: Iterable[Any]) -> bool:
    """Tell whether a derivative is computed here that goes through one of these: at a level, we cannot tell which."""
    if functorch.TransformType.Grad in kinds():
        return True
    own = LEVEL.own
    return own is not None and any(not isinstance(leaf, Tensor) or reaches(own, leaf) for leaf in outputs)


def _with_graph(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Ask `torch.autograd.grad` for a graph, unless the user has said by no_grad that there shall be none."""
    outputs, inputs = args[:2]
    if kwargs.get("create_graph") or not torch.is_grad_enabled() or not _differentiating(outputs):
        return args, kwargs
    if _caller_of(torch.autograd.grad) is not functional.__dict__:
        return args, {**kwargs, "create_graph": True, "retain_graph": True}
    given = set(map(id, inputs))
    leaves = [leaf for output in outputs if output.grad_fn is not None for leaf in leaves_of_graph(output.grad_fn)]
    if any(id(leaf) not in given for leaf in leaves):
        raise RuntimeError("torch.autograd.functional cuts off what it captures")
    return args, kwargs


def _caller_of(function: Any) -> Any:
    """Return the globals of the code that has called a function which is at work."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame and frame.f_back.f_globals


def _no_backward(args: Any, kwargs: Any) -> tuple[Any, Any]:
    outputs = (args[0],) if isinstance(args[0], Tensor) else args[0]
    own = LEVEL.own or []
    if any(isinstance(leaf, Tensor) and reaches(own, leaf) for leaf in outputs):
        raise RuntimeError("backward() called inside of a gradient")
    return args, kwargs


def _no_cut(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse that `torch.autograd.functional` detaches what a derivative follows; anyone else may."""
    code = sys._getframe(2).f_code
    if code is grad_preprocess.__code__ and args[0].requires_grad and _differentiating(args[:1]):
        raise RuntimeError("torch.autograd.functional cuts off what it is given")
    return args, kwargs


def _no_deepcopy(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse a copy that loses the derivative: of a variable, which torch copies as a new one."""
    if any(args[0] is leaf for leaf in LEVEL.own or ()):
        raise RuntimeError("Cannot access storage of a variable")
    return args, kwargs


def _no_linearize(args: Any, kwargs: Any) -> tuple[Any, Any]:
    frame: Any = sys._getframe(2)
    inside = _linearize.__code__ in (frame.f_code, frame.f_back and frame.f_back.f_code)
    if inside and (LEVEL.own is not None or {functorch.TransformType.Grad, functorch.TransformType.Jvp} & set(kinds())):
        raise RuntimeError("torch.func.linearize called inside of a derivative")
    return args, kwargs


OVERRIDES = (
    Override([torch.autograd.grad], Where.INTERCEPTED, _with_graph),
    Override([torch.autograd.backward, Tensor.backward], Where.INTERCEPTED, _no_backward),
    Override([Tensor.detach], Where.INTERCEPTED, _no_cut),
    Override([Tensor.__deepcopy__], Where.INTERCEPTED, _no_deepcopy),
    Override([Tensor.new_empty], Where.INTERCEPTED, _no_linearize),
)
