"""Momentum (Polyak 1964), and Nesterov's form of it (Sutskever et al. 2013)."""

from typing import Any, NamedTuple

from torch import Tensor

from torchpure.compat.torchopt.base import GradientTransformation, identity

from ._checks import check_nesterov, check_nonnegative
from ._leafwise import Formula, make_transformation
from .utils import flattened, init_like

__all__ = ["trace"]


class TraceState(NamedTuple):
    """State of `trace`."""

    trace: Any  # decayed sum of the gradients


class _FirstTraceState(TraceState):
    """A `TraceState` before the first step, which no dampening applies to.

    torchopt keeps this in the transformation, not in the state: a second run with the same transformation differs
    there.
    """

    __slots__ = ()


@flattened
def trace(
    momentum: float = 0.9, dampening: float = 0.0, nesterov: bool = False, moment_requires_grad: bool = False
) -> GradientTransformation:
    """Return t ← momentum t + (1 − dampening) g, or g + momentum t with `nesterov`. The first t is g.

    Raises:
        ValueError: `momentum` is negative; or `nesterov` without momentum, or with dampening.

    >>> import torch
    >>> sum_ = trace(0.5)
    >>> state = sum_.init((torch.tensor(0.0),))
    >>> updates, state = sum_.update((torch.tensor(2.0),), state, inplace=False)
    >>> sum_.update((torch.tensor(2.0),), state, inplace=False)[0]
    (tensor(3.),)
    """
    check_nonnegative(momentum=momentum)
    check_nesterov(nesterov, momentum, dampening)
    if momentum == 0.0:
        return identity()

    def init(params: Any) -> TraceState:
        return _FirstTraceState(trace=init_like(params, requires_grad=moment_requires_grad))

    def prepare(state: TraceState) -> Any:
        weight = 1.0 if nesterov or isinstance(state, _FirstTraceState) else 1.0 - dampening
        decay = 1.0 if isinstance(state, _FirstTraceState) else momentum

        def leaf(grad: Tensor, param: Any, old: Tensor) -> tuple[Tensor, Tensor]:
            new = old.mul(decay).add(grad, alpha=weight)
            return grad.add(new, alpha=momentum) if nesterov else new.clone(), new

        return leaf

    constant = not any(isinstance(number, Tensor) for number in (momentum, dampening))
    return make_transformation(
        init,
        Formula(prepare, ("trace",), advance=lambda state: TraceState(*state), writes=True, constant=constant),
    )
