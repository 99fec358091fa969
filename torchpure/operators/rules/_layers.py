"""First and second derivatives through layers and activations, as one operation for autograd.

The derivatives of a value are one tensor of shape (D + K, N, *value): D first derivatives, then K second derivatives,
or their one sum. So a layer is one product of matrices. The backward pass is written by hand: with one node for each
operation it would cost three times as much. Where it is differentiated itself, it is the pass of autograd.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure._torch import DisableTorchFunction, forward_ad, functorch


class Pairs(NamedTuple):
    """Which second derivatives are carried along D directions."""

    count: int  # D
    summed: bool  # whether they are one sum
    chosen: tuple[tuple[int, int], ...] | None  # pairs of directions; None: each direction with itself

    def products(self, rows: Tensor) -> Tensor:
        """Multiply first derivatives: (D, N, *value) -> (K, N, *value)."""
        if self.chosen is None:
            squares = rows * rows
            return squares.sum(0, keepdim=True) if self.summed else squares
        if len(self.chosen) == 1:
            ((i, j),) = self.chosen
            return rows[i : i + 1] * rows[j : j + 1]
        return torch.stack([rows[i] * rows[j] for i, j in self.chosen])

    def pull(self, rows: Tensor, grads: Tensor, into: Tensor) -> None:
        """Add the gradients for the first derivatives."""
        if self.chosen is None:
            _add_product(into, rows, grads, 2)
            return
        for (i, j), grad in zip(self.chosen, grads, strict=True):
            _add_product(into[i], rows[j], grad, 2 if i == j else 1)
            if i != j:
                _add_product(into[j], rows[i], grad)


def _add_product(into: Tensor, a: Tensor, b: Tensor, factor: int = 1) -> None:
    if functorch.peek_interpreter_stack() is None:
        into.addcmul_(a, b, value=factor)
    else:  # `addcmul_` has no rule for vmap
        into.add_(a * b, alpha=factor)


class Step(NamedTuple):
    """A layer, or an activation, with its tensors at all N members."""

    kind: str  # "linear" (weight), "first" (weight, of an identity), "tanh" (value), "function" (f′, f″)
    tensors: tuple[Tensor, ...]


Kept = tuple[Tensor, ...]  # what the backward pass of a step reads


def push(pairs: Pairs, steps: Sequence[Step], start: Tensor | None) -> Tensor:
    """Return the derivatives after some steps; `start` is None before a step "first", and may lack second derivatives.

    >>> weight, value = torch.tensor([[2.0]]), torch.tensor([[0.5]])
    >>> push(Pairs(1, True, None), [Step("first", (weight,)), Step("tanh", (value,))], None).flatten()
    tensor([ 1.5000, -3.0000])
    """
    tensors = [tensor for step in steps for tensor in step.tensors]
    given = tensors if start is None else [start, *tensors]
    recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    if recorded and functorch.peek_interpreter_stack() is None and not any(map(_is_dual, given)):
        return _Layers.apply(pairs, tuple(step.kind for step in steps), start, *tensors)  # pyrefly: ignore[bad-return]
    return _run(pairs, steps, start)


def _is_dual(leaf: Tensor) -> bool:
    return forward_ad.unpack_dual(leaf).tangent is not None


def _run(pairs: Pairs, steps: Sequence[Step], start: Tensor | None, kept: list[Tensor] | None = None) -> Tensor:
    """Run the steps; list in `kept` what a backward pass reads. Without one, memory is used again at once."""
    now: Any = start
    for step in steps:
        now, read = _PUSH[step.kind](pairs, now, *step.tensors)
        if kept is not None:
            kept += read
    return now


def _linear(pairs: Pairs, at: Tensor, weight: Tensor) -> tuple[Tensor, Kept]:
    return F.linear(at, weight), (at, weight)


def _first(pairs: Pairs, at: None, weight: Tensor) -> tuple[Tensor, Kept]:
    return weight.mT.contiguous().unsqueeze(1), ()


def _tanh(pairs: Pairs, at: Tensor, value: Tensor) -> tuple[Tensor, Kept]:
    return _function(pairs, at, *_of_tanh(value))[0], (at, value)


def _of_tanh(value: Tensor) -> tuple[Tensor, Tensor]:
    slope = 1 - value * value
    return slope, torch.mul(value, slope).mul_(-2)


def _function(pairs: Pairs, at: Tensor, slope: Tensor, curve: Tensor) -> tuple[Tensor, Kept]:
    """Apply f(u)′ = f′u′ and f(u)″ = f′u″ + f″u′u′."""
    products = pairs.products(at[: pairs.count])
    if len(at) == pairs.count:
        out = torch.cat([slope * at, curve * products])
    else:
        out = slope * at
        _add_product(out[pairs.count :], curve, products)
    return out, (at, slope, curve)


_PUSH: dict[str, Callable[..., tuple[Tensor, Kept]]] = {
    "linear": _linear, "first": _first, "tanh": _tanh, "function": _function
}  # fmt: skip
_NUM_TENSORS = {"linear": 1, "first": 1, "tanh": 1, "function": 2}
_NUM_KEPT = {"linear": 2, "first": 0, "tanh": 2, "function": 3}


def _pull_linear(pairs: Pairs, grad: Tensor, at: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    return grad @ weight, grad.reshape(-1, len(weight)).mT @ at.reshape(-1, weight.shape[1])


def _pull_first(pairs: Pairs, grad: Tensor) -> tuple[Any, ...]:
    return None, grad.squeeze(1).mT


def _pull_tanh(pairs: Pairs, grad: Tensor, at: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    slope, curve = _of_tanh(value)
    before, of_slope, of_curve = _pull_function(pairs, grad, at, slope, curve)
    return before, torch.addcmul(of_curve * (4 - 6 * slope), value, of_slope, value=-2)  # f″ = -2 f f′, f′ = 1 - f²


def _pull_function(pairs: Pairs, grad: Tensor, at: Tensor, slope: Tensor, curve: Tensor) -> tuple[Tensor, ...]:
    rows, same, bent = at[: pairs.count], grad[: len(at)], grad[pairs.count :]
    before = slope * same
    pairs.pull(rows, curve * bent, before[: pairs.count])
    of_slope, of_curve = _sum_of_products(at, same), pairs.products(rows) * bent
    of_curve = of_curve[0] if len(of_curve) == 1 else of_curve.sum(0)
    return before.sum_to_size(at.shape), of_slope.sum_to_size(slope.shape), of_curve.sum_to_size(slope.shape)


def _sum_of_products(left: Tensor, right: Tensor) -> Tensor:
    """Return the sum over the first dimension, without the memory of all products."""
    total = left[0] * right[0]
    for a, b in zip(left[1:], right[1:], strict=True):
        _add_product(total, a, b)
    return total


_PULL: dict[str, Callable[..., tuple[Any, ...]]] = {
    "linear": _pull_linear, "first": _pull_first, "tanh": _pull_tanh, "function": _pull_function
}  # fmt: skip


class _Layers(torch.autograd.Function):
    """`push`, outside of all transforms."""

    @staticmethod
    def forward(ctx: Any, pairs: Pairs, kinds: tuple[str, ...], start: Tensor | None, *tensors: Tensor) -> Tensor:
        kept: list[Tensor] = []
        out = _run(pairs, _steps(kinds, tensors), start, kept)
        ctx.pairs, ctx.kinds, ctx.count = pairs, kinds, 1 + len(tensors)
        ctx.save_for_backward(start, *tensors, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        """Pull a gradient through the steps; by autograd if that is to be differentiated again."""
        (grad,) = grads
        saved = ctx.saved_tensors  # once: `remat` allows no more
        given, kept = saved[: ctx.count], saved[ctx.count :]
        with DisableTorchFunction():
            if torch.is_grad_enabled():
                return None, None, *_pull_again(ctx.pairs, ctx.kinds, given, grad)
            found: list[Any] = []
            for kind in reversed(ctx.kinds):
                split = len(kept) - _NUM_KEPT[kind]
                grad, *of_tensors = _PULL[kind](ctx.pairs, grad, *kept[split:])
                found, kept = [*of_tensors, *found], kept[:split]
        return None, None, grad, *found


def _steps(kinds: Sequence[str], tensors: Sequence[Tensor]) -> list[Step]:
    remaining = iter(tensors)
    return [Step(kind, tuple(next(remaining) for _ in range(_NUM_TENSORS[kind]))) for kind in kinds]


def _pull_again(pairs: Pairs, kinds: Sequence[str], given: Sequence[Any], grad: Tensor) -> list[Any]:
    """Return gradients that can be differentiated: of a new pass, because the first one was not recorded."""
    alone: list[Any] = [
        None if leaf is None else leaf.view_as(leaf) for leaf in given
    ]  # without the way from one to another
    start, *tensors = alone
    out = _run(pairs, _steps(kinds, tensors), start)
    wanted = [leaf for leaf in alone if leaf is not None and leaf.requires_grad]
    grads = iter(torch.autograd.grad(out, wanted, grad, create_graph=True, allow_unused=True))
    return [next(grads) if leaf is not None and leaf.requires_grad else None for leaf in alone]
