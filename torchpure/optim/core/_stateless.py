"""Transformations without state."""

from collections.abc import Callable

import torch

from torchpure import tree
from torchpure._types import Grads, Params, Updates

from ._leaves import leafwise
from ._optimizer import EmptyState, Optimizer


def stateless(f: Callable[[Grads, Params], Updates]) -> Optimizer[EmptyState]:
    """Make a transformation from a function of gradients and parameters: u = f(g, p).

    >>> sign = stateless(lambda grads, params: tree.map(torch.sign, grads))
    >>> sign.update(torch.tensor([2.0, -3.0]), EmptyState(), None)[0]
    tensor([ 1., -1.])
    """

    def update(grads: Grads, state: EmptyState, params: Params) -> tuple[Updates, EmptyState]:
        return f(grads, params), state

    return Optimizer(lambda params: EmptyState(), update)


def stateless_leafwise(caller: str, rule: Callable[..., torch.Tensor]) -> Optimizer[EmptyState]:
    """Make a transformation from a formula for one leaf, `rule(g, p)`, which `leafwise` applies."""
    return stateless(lambda grads, params: leafwise(caller, rule, grads, (), params))


def identity() -> Optimizer[EmptyState]:
    """Return gradients unchanged: u = g.

    Law: `chain(identity(), a) == a`.

    >>> identity().update(torch.ones(2), identity().init(None), None)[0]
    tensor([1., 1.])
    """
    return stateless(lambda grads, params: grads)


def set_to_zero() -> Optimizer[EmptyState]:
    """Make every update zero: u = 0, also where the gradient is NaN.

    >>> set_to_zero().update(torch.tensor([2.0]), EmptyState(), None)[0]
    tensor([0.])
    """
    return stateless(lambda grads, params: tree.zeros_like(grads))


def centralize() -> Optimizer[EmptyState]:
    """Subtract the mean over all dimensions but the first: u = g − mean(g).

    Vectors and scalars are unchanged. From Yong et al. 2020, arXiv:2004.01461, equation 1.

    >>> centralize().update(torch.tensor([[1.0, 3.0]]), EmptyState(), None)[0]
    tensor([[-1.,  1.]])
    """

    def rule(g: torch.Tensor) -> torch.Tensor:
        return g - g.mean(tuple(range(1, g.ndim)), keepdim=True) if g.ndim > 1 else g

    return stateless(lambda grads, params: tree.map(rule, grads))
