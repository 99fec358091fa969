"""Complex leaves as two real leaves, for formulas that depend on a leaf's dimensions."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Grads, Params, T, Tree, Updates

from ._optimizer import Optimizer


class RealAndImaginary(NamedTuple):
    """The real and the imaginary part of a complex leaf."""

    real: Tensor
    imaginary: Tensor


def split_complex(values: Tree) -> Tree:
    """Split each complex leaf into two real ones."""
    return tree.map(_split, values)


def join_complex(grads: Grads, updates: Updates) -> Updates:
    """Join the updates of split leaves, where the gradient is complex."""
    return tree.map(_join, grads, updates)


def by_real_parts(init: Callable[[Params], T], rule: Callable[..., tuple[Updates, T]]) -> Optimizer[T]:
    """Make an optimizer whose init and rule get each complex leaf as two real leaves.

    Law: `by_real_parts(a.init, a.rule)` updates as `split_real_and_imaginary(a)` does.
    """

    @wraps(init)
    def split_init(params: Params) -> T:
        return init(split_complex(params))

    @wraps(rule)
    def split_rule(grads: Grads, state: T, params: Params, **extra: Any) -> tuple[Updates, T]:
        updates, new_state = rule(split_complex(grads), state, split_complex(params), **extra)
        return join_complex(grads, updates), new_state

    return Optimizer(split_init, split_rule)


def _split(leaf: Any) -> Tree:
    is_complex = isinstance(leaf, Tensor) and leaf.is_complex()
    return RealAndImaginary(leaf.real, leaf.imag) if is_complex else leaf


def _join(gradient: Any, update: Any) -> Any:
    is_pair = isinstance(gradient, Tensor) and gradient.is_complex()
    return torch.complex(update.real, update.imaginary) if is_pair else update
