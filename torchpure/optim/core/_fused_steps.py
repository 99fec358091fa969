"""Steps on ordinary tensors in few kernels: Adam's on copies that one fused kernel changes, SGD's in new tensors.

Nobody can see the change in place. Under a transform, a tracer or autograd, for tensors that the kernel does not
know, and where a leaf has no gradient, there is no kernel and the formula is used. A donated step does without the
copies: it takes the memory of what it is given, and leaves the given tensors empty, so that no use of them is silent.
"""

from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._torch import foreach_add, foreach_clone, fused_adam_, fused_adamw_, fused_sgd_
from torchpure._types import Grads, Params, ScalarOrSchedule

from ._formulas import Number, value_at
from ._optimizer import Kernel

_DTYPES = {torch.float32, torch.float64, torch.bfloat16, torch.float16}
_dtype, _is_cpu = attrgetter("dtype"), attrgetter("is_cpu")


def adam_kernels(
    who: str, learning_rate: ScalarOrSchedule, b1: Number, b2: Number, eps: Number, weight_decay: Number
) -> tuple[Kernel | None, Kernel | None]:
    """Build the kernels of Adam, the plain one and the donated one, with decoupled weight decay if it is not 0."""
    plain, donated = (
        _adam_kernel(who, learning_rate, b1, b2, eps, weight_decay, copy) for copy in (foreach_clone, _taken)
    )
    return plain, donated


def _adam_kernel(
    who: str, learning_rate: ScalarOrSchedule, b1: Number, b2: Number, eps: Number, weight_decay: Number, copy: Any
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
        g, m, v = (tree.align(structure, params, part, who) for part in (grads, state.mean, state.square))
        lr = value_at(learning_rate, state.step)
        scalars = [state.step, lr] if isinstance(lr, Tensor) else [state.step]
        if not _applies([*leaves, *m, *v], g, scalars):
            return None
        size = len(leaves)
        copies = copy([*leaves, *m, *v])
        p, m, v = copies[:size], copies[size : 2 * size], copies[2 * size :]
        step = state.step + 1
        fused(p, g, m, v, [], [_kernel_step(step)] * size, lr=_number(lr), **options)
        rebuild = partial(tree.unflatten, structure)
        return rebuild(p), type(state)(step, rebuild(m), rebuild(v))

    return kernel


def sgd_kernels(
    learning_rate: ScalarOrSchedule, momentum: Number, nesterov: bool
) -> tuple[Kernel | None, Kernel | None]:
    """Build the kernels of SGD, the plain one and the donated one."""
    if isinstance(momentum, Tensor):
        return None, None
    plain, donated = (_sgd_kernel(learning_rate, momentum, move, nesterov) for move in (_sgd_step, _sgd_in_place))
    return plain, donated


def _sgd_kernel(learning_rate: ScalarOrSchedule, momentum: float, move: Any, nesterov: bool) -> Kernel:
    def kernel(grads: Grads, state: Any, params: Params) -> tuple[Params, Any] | None:
        leaves, structure = tree.flatten(params)
        g = tree.align(structure, params, grads, "sgd")
        b = tree.align(structure, params, state.momentum, "sgd") if momentum else []
        lr = value_at(learning_rate, state.step)
        scalars = [state.step, lr] if isinstance(lr, Tensor) else [state.step]
        if not _applies([*leaves, *b], g, scalars):
            return None
        lr = _number(lr)
        if isinstance(lr, Tensor):  # on a device, where reading it would wait
            return None
        p, b = move(leaves, g, b, lr, momentum, nesterov)
        rebuild = partial(tree.unflatten, structure)
        return rebuild(p), type(state)(state.step + 1, rebuild(b) if momentum else None)

    return kernel


def _sgd_step(p: list[Any], g: list[Any], b: list[Any], lr: float, momentum: float, nesterov: bool) -> Any:
    if not b:
        return foreach_add(p, g, alpha=-lr), b
    b = list(foreach_add(g, b, alpha=momentum))
    return foreach_add(p, foreach_add(g, b, alpha=momentum) if nesterov else b, alpha=-lr), b


def _sgd_in_place(p: list[Any], g: list[Any], b: list[Any], lr: float, momentum: float, nesterov: bool) -> Any:
    p, b = _taken(p), _taken(b)
    options = {"weight_decay": 0.0, "momentum": momentum, "lr": lr, "dampening": 0.0, "nesterov": nesterov}
    fused_sgd_(p, g, b, maximize=False, is_first_step=False, **options)
    return p, b


def _taken(tensors: list[Tensor]) -> list[Tensor]:
    """Move memory into new tensors; the old ones are left without any."""
    new = [tensor.detach() for tensor in tensors]
    for tensor in tensors:
        tensor.data = _NOTHING
    return new


_NOTHING = torch.empty(0)


def _applies(copied: list[Any], grads: list[Any], scalars: list[Tensor]) -> bool:
    """Tell whether the kernel may see these: it takes dense memory in order, of one dtype, and asks no questions."""
    every = [*copied, *grads]
    if not copied or not tree.plain([*every, *scalars]):
        return False
    like = grads * (len(copied) // max(len(grads), 1))
    return (
        copied[0].dtype in _DTYPES
        and len(set(map(_dtype, every))) == 1
        and (all(map(_is_cpu, every)) or _on_one_cuda(every))
        and all(map(Tensor.is_contiguous, every))
        and len(like) == len(copied)
        and all(map(Tensor.is_same_size, copied, like))  # a third of what comparing shapes takes
    )


def _on_one_cuda(leaves: list[Tensor]) -> bool:
    return len({leaf.device for leaf in leaves}) == 1 and leaves[0].is_cuda


def _kernel_step(step: Tensor) -> Tensor:
    return step if step.device.type == "cpu" else step.to(torch.float32)  # the CUDA kernel reads 32 bits


def _number(value: float | Tensor) -> float | Tensor:
    return value.item() if isinstance(value, Tensor) and value.device.type == "cpu" else value
