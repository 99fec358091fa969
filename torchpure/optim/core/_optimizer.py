"""The `Optimizer` pair of pure functions, its `step`, and how updates are applied."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from types import FunctionType
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import foreach_add
from torchpure._types import Grads, Params, Updates
from torchpure.errors import StructureError
from torchpure.tree.summaries import shortened, shown

from ._missing_params import check_given
from ._misuse import FAILURES, describe_no_params, describe_optimizer, explain_failure, refuse_state
from ._sharded import has_dtensors, init_on_parts, laid_out_like, run_on_parts
from ._sharded_steps import kernel_on_parts

S = TypeVar("S")
Kernel = Callable[..., tuple[Params, S] | None]

_SCHEDULED = ("learning_rate", "weight_decay", "step_size_fn")  # closure variables that may hold a schedule


class EmptyState(NamedTuple):
    """State of a transformation without state."""


@dataclass(frozen=True, slots=True)
class Optimizer(Generic[S]):
    """A pair of pure functions: `init(params)`, and a rule from (grads, state, params) to (updates, new state).

    `update` calls the rule. The updates are to be added to the parameters. Where a gradient is None, the parameter and
    its part of the state do not change. A transformation is the same pair: in a `chain`, its updates are the gradients
    of the next one.

    A rule may need other values, such as the loss. It names them in `extra`, and takes them by keyword. A combinator
    has the names of its parts. `update` and `step` accept any keyword, and pass on those that are named.
    """

    init: Callable[[Params], S]
    rule: Callable[..., tuple[Updates, S]]
    kernel: Kernel[S] | None = None  # the whole step in fewer kernels; returns None where it does not apply
    extra: tuple[str, ...] = ()  # the keywords that the rule needs, such as "value", "grad", "value_fn"
    donated: Kernel[S] | None = None  # the kernel for `donate`: it reuses the memory of its inputs
    undo: Callable[..., tuple[Params, S]] | None = None  # undo(gradient function, state, params): a step backwards
    _state_type: type | None = field(init=False, repr=False, compare=False)  # of the rule's annotation

    def __post_init__(self) -> None:
        """Check the parameters in `init`, and read the type of the state from the rule's annotation."""
        object.__setattr__(self, "init", _checked_init(self.init, self.rule))
        object.__setattr__(self, "_state_type", _annotated_state(self.rule))

    def update(self, grads: Grads, state: S, params: Params, **extra: Any) -> tuple[Updates, S]:
        """Compute (updates, new state).

        Raises:
            StructureError: grads or state are not shaped like params, or the state is that of another optimizer.
            TypeError: a keyword that the rule needs is missing, or an argument is a module.
        """
        if has_dtensors(grads, state, params):
            moved = run_on_parts(partial(self._update, **extra), grads, state, params)
            return laid_out_like((grads if params is None else params, state), moved)
        return self._update(grads, state, params, **extra)

    def _update(self, grads: Grads, state: S, params: Params, **extra: Any) -> tuple[Updates, S]:
        required = self._required_extra(extra) if self.extra else {}
        try:
            if self._state_type is not None and type(state) is not self._state_type:
                refuse_state(_factory_name(self.rule), self._state_type, state)
            return self.rule(grads, state, params, **required)
        except FAILURES:
            explain_failure(_factory_name(self.rule), self.init, grads, state, params)
            raise

    def step(self, grads: Grads, state: S, params: Params, **extra: Any) -> tuple[Params, S]:
        """Compute (new params, new state): `update` and `apply_updates` in one call.

        Law: `step(g, s, p) == (apply_updates(p, u), s')` where `u, s' = update(g, s, p)`, up to rounding.

        Raises:
            StructureError: grads or state are not shaped like params, or the state is that of another optimizer.
            TypeError: a keyword that the rule needs is missing, or an argument is a module.
        """
        if not has_dtensors(grads, state, params):
            return self._step(grads, state, params, **extra)
        made = kernel_on_parts(self.kernel, grads, state, params)
        return made or laid_out_like((params, state), run_on_parts(partial(self._step, **extra), grads, state, params))

    def _step(self, grads: Grads, state: S, params: Params, **extra: Any) -> tuple[Params, S]:
        required = self._required_extra(extra) if self.extra else {}
        try:
            if self._state_type is not None and type(state) is not self._state_type:
                refuse_state(_factory_name(self.rule), self._state_type, state)
            result = self.kernel(grads, state, params, **required) if self.kernel else None
            if result is not None:
                return result
            updates, new_state = self.rule(grads, state, params, **required)
            return apply_updates(params, updates), new_state
        except FAILURES:
            check_given(_factory_name(self.rule), params)
            explain_failure(_factory_name(self.rule), self.init, grads, state, params)
            raise

    def __repr__(self) -> str:
        first, *parts = _describe(self)
        return "\n".join(shortened([f"Optimizer {first}", *parts], 12))

    def _required_extra(self, extra: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name in self.extra if name not in extra]
        if missing:
            caller = self.rule.__qualname__.split(".")[0]
            call = ", ".join(f"{name}=…" for name in self.extra)
            raise TypeError(f"{caller}: wanted {', '.join(missing)}: call step(grads, state, params, {call})")
        return {name: extra[name] for name in self.extra}


def _checked_init(init: Callable[[Params], S], rule: Callable[..., Any]) -> Callable[[Params], S]:
    def checked_init(params: Params) -> S:
        if kind := describe_no_params(params):
            raise TypeError(f"{_factory_name(rule)}: wanted a tree of tensors as parameters, got {kind}")
        return init_on_parts(init, params) if has_dtensors(params) else init(params)

    return checked_init


def _annotated_state(rule: Callable[..., Any]) -> type | None:
    """Return the named tuple that a rule declares as the type of its state; None if it declares another type."""
    kind = getattr(rule, "__annotations__", {}).get("state")
    return kind if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields") else None


def check_optimizer(caller: str, *values: Any) -> None:
    """Check that arguments are optimizers of this library.

    Raises:
        TypeError: one is not.
    """
    for value in values:
        if not isinstance(value, Optimizer):
            raise TypeError(f"{caller}: wanted an optimizer of tp.optim, got {describe_optimizer(value)}")


def _describe(optimizer: Optimizer[Any]) -> list[str]:
    """Describe an optimizer in lines: its factory with the numbers in its closure, then its inner optimizers."""
    captured = _closure_values(optimizer.rule)
    parts = [part for value in captured.values() for part in _inner_optimizers(value)]
    if len(parts) == 1 and _factory_name(parts[0].rule) == _factory_name(
        optimizer.rule
    ):  # a rule around another rule of the same factory
        captured, parts = captured | _closure_values(parts[0].rule), []
    texts = {key: shown(value) for key, value in captured.items() if isinstance(value, float | int | Tensor)}
    texts |= {key: "a schedule" for key in _SCHEDULED if callable(captured.get(key))}
    numbers = [f"{key}={texts[key]}" for key in sorted(texts, key=lambda key: (key not in _SCHEDULED, key))]
    first = _factory_name(optimizer.rule) + (f"({', '.join(numbers)})" if numbers else "")
    return [first, *(f"  {line}" for part in parts for line in _describe(part))]


def _factory_name(rule: Callable[..., Any]) -> str:
    """Return the name of the factory that made a rule.

    If a private function made it, its closure variable `caller` has the name, or else the rule itself.
    """
    captured = _closure_values(rule)
    if "caller" in captured:
        return captured["caller"]
    path = getattr(captured.get("f", rule), "__qualname__", "a rule").split(".")
    return path[-1] if path[0].startswith("_") and path[-1] != "update" else path[0].lstrip("_")


def _closure_values(fn: Callable[..., Any], depth: int = 3) -> dict[str, Any]:
    """Return the closure variables of a function, and those of this library's functions among them."""
    captured = dict(inspect.getclosurevars(fn).nonlocals) if isinstance(fn, FunctionType) else {}
    for name, value in list(captured.items()):
        from_library = isinstance(value, FunctionType) and (value.__module__ or "").startswith("torchpure.")
        if from_library and depth and name not in _SCHEDULED:
            captured = _closure_values(value, depth - 1) | captured
    return captured


def _inner_optimizers(value: Any) -> list[Optimizer[Any]]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return [part for part in values if isinstance(part, Optimizer)]


def donate(optimizer: Optimizer[S]) -> Optimizer[S]:
    """Let each step reuse the memory of the parameters and the state that it is given, where possible.

    In eager code the old tensors become empty: using them is an error about their shape. Under `torch.compile` the step
    writes the new values into the old tensors. Nothing changes under transforms, and in eager code for optimizers that
    have no donating kernel.

    >>> from torchpure import optim
    >>> opt, old = donate(optim.sgd(0.1)), torch.tensor([1.0])
    >>> new, _ = opt.step(torch.tensor([2.0]), opt.init(old), old)
    >>> new, old
    (tensor([0.8000]), tensor([]))
    """
    check_optimizer("donate", optimizer)
    eager_kernel = optimizer.donated or optimizer.kernel

    def kernel(grads: Grads, state: S, params: Params, **extra: Any) -> tuple[Params, S] | None:
        if is_dynamo_compiling():
            return _step_into_inputs(optimizer, grads, state, params, **extra)
        return eager_kernel(grads, state, params, **extra) if eager_kernel else None

    return replace(optimizer, kernel=kernel)


def _step_into_inputs(
    optimizer: Optimizer[S], grads: Grads, state: S, params: Params, **extra: Any
) -> tuple[Params, S] | None:
    """Write the results of a step into its inputs. The compiler fuses these copies into the loops of the step."""
    leaves, structure = tree.flatten((params, state))
    needs_grad = torch.is_grad_enabled() and any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves)
    if needs_grad or not tree.untransformed():
        return None
    updates, new_state = optimizer.rule(grads, state, params, **extra)
    new_leaves = tree.ordered(
        structure, (apply_updates(params, updates), new_state), "step: the new parameters and state"
    )
    return tree.unflatten(structure, [_copy_into(old, new) for old, new in zip(leaves, new_leaves, strict=True)])


def _copy_into(old: Any, new: Any) -> Any:
    if isinstance(old, Tensor) and isinstance(new, Tensor) and (old.shape, old.dtype) == (new.shape, new.dtype):
        return old.copy_(new)
    return new


def extra_names(*optimizers: Optimizer[Any]) -> tuple[str, ...]:
    """List the keywords that these optimizers need, each once."""
    return tuple(dict.fromkeys(name for optimizer in optimizers for name in optimizer.extra))


def apply_updates(params: Params, updates: Updates) -> Params:
    """Add updates to parameters: p + u. Where an update is None, the parameter is unchanged. Each keeps its dtype.

    Raises:
        StructureError: updates are not shaped like params, or one has a dtype that its parameter cannot hold.

    >>> apply_updates({"w": torch.ones(2), "n": 3}, {"w": torch.ones(2), "n": None})
    {'w': tensor([2., 2.]), 'n': 3}
    """
    leaves, structure = tree.flatten(params)
    moves = tree.align(structure, params, updates, "apply_updates")
    if leaves and tree.plain(leaves) and tree.plain(moves) and _same_dtypes(leaves, moves):
        return tree.unflatten(structure, foreach_add(leaves, moves))
    for name, part in (("parameters", params), ("updates", updates)):
        if kind := describe_no_params(part):
            raise TypeError(f"apply_updates: wanted a tree of tensors as {name}, got {kind}")
    return tree.unflatten(structure, [_add_update(leaf, move) for leaf, move in zip(leaves, moves, strict=True)])


def _same_dtypes(leaves: list[Tensor], moves: list[Tensor]) -> bool:
    return all(leaf.dtype == move.dtype for leaf, move in zip(leaves, moves, strict=True))


def _kind(leaf: Tensor) -> int:
    """Rank a dtype: integers and bools, floating point, complex. `torch.can_cast` cannot be compiled."""
    return 2 if leaf.is_complex() else int(leaf.is_floating_point())


def _add_update(leaf: Any, move: Any) -> Any:
    if move is None:
        return leaf
    if isinstance(leaf, Tensor) and isinstance(move, Tensor) and _kind(move) > _kind(leaf):
        raise StructureError(
            f"apply_updates: an update is {tree.describe(move)}, its parameter {tree.describe(leaf)}: give None as the "
            "gradient of integers, and a real gradient to a real parameter"
        )
    return (leaf + move).to(leaf.dtype)
