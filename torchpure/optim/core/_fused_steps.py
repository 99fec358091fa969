"""Whole steps of Adam and SGD on ordinary tensors, in few kernels.

Adam copies parameters and moments, and one fused kernel updates the copies in place. SGD writes new tensors. So the
step stays pure. The formula runs instead of the kernel under a transform, a tracer or autograd, for tensors that the
kernel does not support, and where a leaf has no gradient. A donated step makes no copies: it moves the memory of its
inputs into the results. The inputs are then empty tensors, so that using them is an error.
"""

from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._torch import foreach_add, foreach_clone, fused_adam_, fused_adamw_, fused_sgd_
from torchpure._types import Grads, Params, ScalarOrSchedule

from ._formulas import Number, evaluate_schedule
from ._optimizer import Kernel

_DTYPES = {torch.float32, torch.float64, torch.bfloat16, torch.float16}
_dtype, _is_cpu = attrgetter("dtype"), attrgetter("is_cpu")


def adam_kernels(
    caller: str, learning_rate: ScalarOrSchedule, b1: Number, b2: Number, eps: Number, weight_decay: Number
) -> tuple[Kernel | None, Kernel | None]:
    """Build Adam's kernels (plain, donated), with decoupled weight decay if it is not 0."""
    plain, donated = (
        _adam_kernel(caller, learning_rate, b1, b2, eps, weight_decay, copy) for copy in (foreach_clone, _move_storage)
    )
    return plain, donated


def _adam_kernel(
    caller: str, learning_rate: ScalarOrSchedule, b1: Number, b2: Number, eps: Number, weight_decay: Number, copy: Any
) -> Kernel | None:
    if any(isinstance(value, Tensor) for value in (b1, b2, eps, weight_decay)):
        return None
    fused = fused_adamw_ if weight_decay else fused_adam_
    options: dict[str, Any] = {
        "beta1": b1,
        "beta2": b2,
        "eps": eps,
        "weight_decay": weight_decay,
        "amsgrad": False,
        "maximize": False,
    }

    def kernel(grads: Grads, state: Any, params: Params) -> tuple[Params, Any] | None:
        leaves, structure = tree.flatten(params)
        g, m, v = (tree.align(structure, params, part, caller) for part in (grads, state.mean, state.square))
        lr = evaluate_schedule(learning_rate, state.step)
        scalars = [state.step, lr] if isinstance(lr, Tensor) else [state.step]
        if not _is_supported([*leaves, *m, *v], g, scalars):
            return None
        size = len(leaves)
        copies = copy([*leaves, *m, *v])
        p, m, v = copies[:size], copies[size : 2 * size], copies[2 * size :]
        step = state.step + 1
        fused(p, g, m, v, [], [_step_for_kernel(step)] * size, lr=_python_number(lr), **options)
        rebuild = partial(tree.unflatten, structure)
        return rebuild(p), type(state)(step, rebuild(m), rebuild(v))

    return kernel


def sgd_kernels(
    learning_rate: ScalarOrSchedule, momentum: Number, nesterov: bool
) -> tuple[Kernel | None, Kernel | None]:
    """Build the kernels of SGD: (plain, donated)."""
    if isinstance(momentum, Tensor):
        return None, None
    plain, donated = (
        _sgd_kernel(learning_rate, momentum, step_fn, nesterov) for step_fn in (_sgd_step, _sgd_step_in_place)
    )
    return plain, donated


def _sgd_kernel(learning_rate: ScalarOrSchedule, momentum: float, step_fn: Any, nesterov: bool) -> Kernel:
    def kernel(grads: Grads, state: Any, params: Params) -> tuple[Params, Any] | None:
        leaves, structure = tree.flatten(params)
        g = tree.align(structure, params, grads, "sgd")
        b = tree.align(structure, params, state.momentum, "sgd") if momentum else []
        lr = evaluate_schedule(learning_rate, state.step)
        scalars = [state.step, lr] if isinstance(lr, Tensor) else [state.step]
        if not _is_supported([*leaves, *b], g, scalars):
            return None
        lr = _python_number(lr)
        if isinstance(lr, Tensor):  # on a device: reading its value would synchronize
            return None
        p, b = step_fn(leaves, g, b, lr, momentum, nesterov)
        rebuild = partial(tree.unflatten, structure)
        return rebuild(p), type(state)(state.step + 1, rebuild(b) if momentum else None)

    return kernel


def _sgd_step(p: list[Any], g: list[Any], b: list[Any], lr: float, momentum: float, nesterov: bool) -> Any:
    if not b:
        return foreach_add(p, g, alpha=-lr), b
    b = list(foreach_add(g, b, alpha=momentum))
    return foreach_add(p, foreach_add(g, b, alpha=momentum) if nesterov else b, alpha=-lr), b


def _sgd_step_in_place(p: list[Any], g: list[Any], b: list[Any], lr: float, momentum: float, nesterov: bool) -> Any:
    p, b = _move_storage(p), _move_storage(b)
    options = {"weight_decay": 0.0, "momentum": momentum, "lr": lr, "dampening": 0.0, "nesterov": nesterov}
    fused_sgd_(p, g, b, maximize=False, is_first_step=False, **options)
    return p, b


def _move_storage(tensors: list[Tensor]) -> list[Tensor]:
    """Move the storage of tensors into new tensors, and leave the old ones empty."""
    new = [tensor.detach() for tensor in tensors]
    for tensor in tensors:
        tensor.data = _EMPTY
    return new


_EMPTY = torch.empty(0)


def _is_supported(copied: list[Any], grads: list[Any], scalars: list[Tensor]) -> bool:
    """Return whether the kernel supports these tensors: contiguous, of one dtype and device, and of matching sizes.

    The kernel itself does not check them.
    """
    every = [*copied, *grads]
    # scalars are read as numbers: no kernel for one that a gradient follows, even in a `no_grad` part of a loop's rule
    if not copied or not tree.plain([*every, *scalars]) or any(scalar.requires_grad for scalar in scalars):
        return False
    like = grads * (len(copied) // max(len(grads), 1))
    return (
        copied[0].dtype in _DTYPES
        and len(set(map(_dtype, every))) == 1
        and (all(map(_is_cpu, every)) or _on_one_cuda(every))
        and all(map(Tensor.is_contiguous, every))
        and len(like) == len(copied)
        and all(map(Tensor.is_same_size, copied, like))  # takes a third of the time of comparing shapes
    )


def _on_one_cuda(leaves: list[Tensor]) -> bool:
    return len({leaf.device for leaf in leaves}) == 1 and leaves[0].is_cuda


def _step_for_kernel(step: Tensor) -> Tensor:
    return step if step.device.type == "cpu" else step.to(torch.float32)  # the CUDA kernel reads float32


def _python_number(value: float | Tensor) -> float | Tensor:
    return value.item() if isinstance(value, Tensor) and value.device.type == "cpu" else value
