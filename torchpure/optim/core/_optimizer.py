"""What an optimizer is: a pair of pure functions, and the step that both make together."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import foreach_add
from torchpure._types import Grads, Params, Updates

S = TypeVar("S")
Kernel = Callable[..., tuple[Params, S] | None]


class EmptyState(NamedTuple):
    """State of a transformation that remembers nothing."""


@dataclass(frozen=True, slots=True)
class Optimizer(Generic[S]):
    """A pair of pure functions: `init(params)`, and a rule `(grads, state, params)` that gives updates and new state.

    `update` calls the rule. It returns what is to be added to the parameters, and the new state. A gradient that is
    None leaves its parameter and its part of the state as they are. A transformation is the same pair: its updates are
    the gradients of the next one in a `chain`.

    A rule that needs more than gradients names it in `extra`, and takes it by keyword; a combinator has the names of
    its parts. `update` and `step` take any keyword, and hand on what is named.
    """

    init: Callable[[Params], S]
    rule: Callable[..., tuple[Updates, S]]
    kernel: Kernel[S] | None = None  # the whole step, in fewer kernels; gives None where it does not apply
    extra: tuple[str, ...] = ()  # the keywords that the rule needs: "value", "grad", "value_fn" …
    donated: Kernel[S] | None = None  # the kernel of `donate`, which takes the memory of what it is given

    def update(self, grads: Grads, state: S, params: Params, **extra: Any) -> tuple[Updates, S]:
        """Return (updates, new state).

        Raises:
            StructureError: grads or state are not shaped like params.
            TypeError: a keyword that the rule needs is missing.
        """
        if not self.extra:
            return self.rule(grads, state, params)
        return self.rule(grads, state, params, **self._needed(extra))

    def step(self, grads: Grads, state: S, params: Params, **extra: Any) -> tuple[Params, S]:
        """Update and apply in one call: (new params, new state).

        Law: `step(g, s, p) == (apply_updates(p, u), s')` where `u, s' = update(g, s, p)`, up to rounding.

        Raises:
            StructureError: grads or state are not shaped like params.
            TypeError: a keyword that the rule needs is missing.
        """
        needed = self._needed(extra) if self.extra else {}
        result = self.kernel(grads, state, params, **needed) if self.kernel else None
        if result is not None:
            return result
        updates, new_state = self.rule(grads, state, params, **needed)
        return apply_updates(params, updates), new_state

    def _needed(self, extra: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name in self.extra if name not in extra]
        if missing:
            who = self.rule.__qualname__.split(".")[0]
            call = ", ".join(f"{name}=…" for name in self.extra)
            raise TypeError(f"{who}: wanted {', '.join(missing)}: call step(grads, state, params, {call})")
        return {name: extra[name] for name in self.extra}


def donate(optimizer: Optimizer[S]) -> Optimizer[S]:
    """Let each step take the memory of the state and the parameters that it is given, where it can.

    Then a step needs no memory of its own, and the old tensors are empty: using them is an error about their shape.
    In a program of `torch.compile` the old tensors become the new ones instead. Under transforms, and in eager code for
    optimizers without such a kernel, a step is as ever.

    >>> from torchpure import optim
    >>> opt, old = donate(optim.sgd(0.1)), torch.tensor([1.0])
    >>> new, _ = opt.step(torch.tensor([2.0]), opt.init(old), old)
    >>> new, old
    (tensor([0.8000]), tensor([]))
    """
    eager = optimizer.donated or optimizer.kernel

    def kernel(grads: Grads, state: S, params: Params, **extra: Any) -> tuple[Params, S] | None:
        if is_dynamo_compiling():
            return _written_over(optimizer, grads, state, params, **extra)
        return eager(grads, state, params, **extra) if eager else None

    return replace(optimizer, kernel=kernel)


def _written_over(
    optimizer: Optimizer[S], grads: Grads, state: S, params: Params, **extra: Any
) -> tuple[Params, S] | None:
    """Write the results of a step into its inputs, while it is compiled: the copies become part of the loops."""
    leaves, structure = tree.flatten((params, state))
    asked = torch.is_grad_enabled() and any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves)
    if asked or not tree.untransformed():
        return None
    updates, new_state = optimizer.rule(grads, state, params, **extra)
    news = tree.ordered(structure, (apply_updates(params, updates), new_state), "step: the new parameters and state")
    return tree.unflatten(structure, [_into(old, new) for old, new in zip(leaves, news, strict=True)])


def _into(old: Any, new: Any) -> Any:
    if isinstance(old, Tensor) and isinstance(new, Tensor) and (old.shape, old.dtype) == (new.shape, new.dtype):
        return old.copy_(new)
    return new


def names(*optimizers: Optimizer[Any]) -> tuple[str, ...]:
    """List the keywords that any of these needs, each once."""
    return tuple(dict.fromkeys(name for optimizer in optimizers for name in optimizer.extra))


def apply_updates(params: Params, updates: Updates) -> Params:
    """Add updates to parameters; where an update is None the parameter stays. Each keeps its dtype.

    Raises:
        StructureError: updates are not shaped like params.

    >>> apply_updates({"w": torch.ones(2), "n": 3}, {"w": torch.ones(2), "n": None})
    {'w': tensor([2., 2.]), 'n': 3}
    """
    leaves, structure = tree.flatten(params)
    moves = tree.align(structure, params, updates, "apply_updates")
    if leaves and tree.plain(leaves) and tree.plain(moves) and _same_dtypes(leaves, moves):
        return tree.unflatten(structure, foreach_add(leaves, moves))
    return tree.unflatten(structure, [_moved(leaf, move) for leaf, move in zip(leaves, moves, strict=True)])


def _same_dtypes(leaves: list[Tensor], moves: list[Tensor]) -> bool:
    return all(leaf.dtype == move.dtype for leaf, move in zip(leaves, moves, strict=True))


def _moved(leaf: Any, move: Any) -> Any:
    return leaf if move is None else (leaf + move).to(leaf.dtype)
