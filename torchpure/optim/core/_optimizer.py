"""What an optimizer is: a pair of pure functions, and the step that both make together."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import foreach_add
from torchpure._types import Grads, Params, Updates
from torchpure.tree.summaries import shortened, shown

S = TypeVar("S")
Kernel = Callable[..., tuple[Params, S] | None]


_SCHEDULED = ("learning_rate", "weight_decay", "step_size_fn")  # where a function is a schedule


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

    def __repr__(self) -> str:
        first, *parts = _described(self)
        return "\n".join(shortened([f"Optimizer {first}", *parts], 12))

    def _needed(self, extra: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name in self.extra if name not in extra]
        if missing:
            who = self.rule.__qualname__.split(".")[0]
            call = ", ".join(f"{name}=…" for name in self.extra)
            raise TypeError(f"{who}: wanted {', '.join(missing)}: call step(grads, state, params, {call})")
        return {name: extra[name] for name in self.extra}


def _described(optimizer: Optimizer[Any]) -> list[str]:
    """Name the factory with the numbers that its rule has captured, and below it the optimizers that it captured."""
    held = _captured(optimizer.rule)
    parts = [part for value in held.values() for part in _parts(value)]
    if len(parts) == 1 and _factory(parts[0].rule) == _factory(optimizer.rule):  # one formula in two functions
        held, parts = held | _captured(parts[0].rule), []
    texts = {key: shown(value) for key, value in held.items() if isinstance(value, float | int | Tensor)}
    texts |= {key: "a schedule" for key in _SCHEDULED if callable(held.get(key))}
    numbers = [f"{key}={texts[key]}" for key in sorted(texts, key=lambda key: (key not in _SCHEDULED, key))]
    first = _factory(optimizer.rule) + (f"({', '.join(numbers)})" if numbers else "")
    return [first, *(f"  {line}" for part in parts for line in _described(part))]


def _factory(rule: Callable[..., Any]) -> str:
    """Name the function that made a rule: a private one says for `who`, or names the rule as the public one."""
    held = _captured(rule)
    if "who" in held:
        return held["who"]
    path = getattr(held.get("f", rule), "__qualname__", "a rule").split(".")
    return path[-1] if path[0].startswith("_") and path[-1] != "update" else path[0].lstrip("_")


def _captured(fn: Callable[..., Any], depth: int = 3) -> dict[str, Any]:
    """Return what a function has captured, and what the functions of this library that it captured have."""
    held = dict(inspect.getclosurevars(fn).nonlocals) if isinstance(fn, FunctionType) else {}
    for name, value in list(held.items()):
        ours = isinstance(value, FunctionType) and value.__module__.startswith("torchpure.")
        if ours and depth and name not in _SCHEDULED:
            held = _captured(value, depth - 1) | held
    return held


def _parts(value: Any) -> list[Optimizer[Any]]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return [part for part in values if isinstance(part, Optimizer)]


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
