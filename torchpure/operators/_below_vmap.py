"""Rules of second order that run below the levels of vmap and of the pass, on all members at once.

In eager code a small operation costs less than its way through the levels. So the common operations of a network,
`linear` and activations, compute their value outside of the levels; only the value goes in again. Their derivatives are
steps, which run together when something asks for them (`rules/_layers.py`).

The function itself runs in each call: no plan is kept, and nothing can be stale. All other operations, and arguments
that these rules do not know, take the usual rules, which read the entries made here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from torchpure._torch import is_any_autocast_enabled, len_torch_dispatch_stack
from torchpure.transforms.calls import primal
from torchpure.transforms.engine import InnerLevels, as_dual, forward_derivatives_are_on, inner_levels
from torchpure.transforms.overrides import only_overrides

from ._follow import Follow, Unfollowed
from ._forms import Entry, Form
from ._formulas import FORMULAS
from .rules import Pairs, Step, is_kinked, push

_TYPES = frozenset({Tensor, Parameter})
_SMOOTH = frozenset(func for func in FORMULAS if not is_kinked(func))  # the usual rules warn of kinks
_TANH = frozenset({torch.tanh, Tensor.tanh, F.tanh})
_SQUEEZE = frozenset({torch.squeeze, Tensor.squeeze})


class Source:
    """Derivatives below the levels, which are known, or are parts of others."""

    def __init__(self, value: Tensor, rows: Tensor | None, second: Tensor | None) -> None:
        self.value = value  # (N, *value), or (1, *value) if the members share it
        self._rows, self._second = rows, second  # (D, N, *value), None: the identity; (K, N, *value), None: zero

    @property
    def bends(self) -> bool:
        """Whether there are second derivatives."""
        return self._second is not None

    @property
    def is_identity(self) -> bool:
        """Whether the value is the point."""
        return self._rows is None

    def start(self) -> Tensor | None:
        """Return all derivatives, one after another; None for the identity."""
        if self._rows is None or self._second is None:
            return self._rows
        members = max(self._rows.shape[1], self._second.shape[1])
        parts = [one.expand(-1, members, *one.shape[2:]) for one in (self._rows, self._second)]
        return torch.cat(parts)

    def rows(self) -> Tensor:
        """Return first derivatives."""
        assert self._rows is not None
        return self._rows

    def second(self) -> Tensor | None:
        """Return second derivatives."""
        return self._second


class Stepped:
    """Derivatives below the levels, one step after others."""

    def __init__(self, value: Tensor, before: "Below", step: Step, pairs: Pairs) -> None:
        self.value, self._before, self._step, self._pairs = value, before, step, pairs
        self.bends = before.bends or step.kind in {"tanh", "function"}
        self._versions = [tensor._version for tensor in step.tensors]
        self._found: Tensor | None = None

    def _checked(self) -> Step:
        if self._versions != [tensor._version for tensor in self._step.tensors]:  # one was written to since
            raise Unfollowed
        return self._step

    def start(self) -> Tensor | None:
        """Run all steps that have not been run."""
        if self._found is None:
            steps, at = [self._checked()], self._before
            while isinstance(at, Stepped) and at._found is None:
                steps.append(at._checked())
                at = at._before
            self._found = push(self._pairs, steps[::-1], at.start())
        return self._found

    def rows(self) -> Tensor:
        """Return first derivatives; after the last activation, without the second."""
        if self._found is None and self._step.kind == "linear":
            return F.linear(self._before.rows(), *self._checked().tensors)
        return self.start()[: self._pairs.count]  # pyrefly: ignore[unsupported-operation] a step's result is a tensor

    def second(self) -> Tensor | None:
        """Return second derivatives; after the last activation, without the first."""
        if not self.bends:
            return None
        if self._found is None and self._step.kind == "linear":
            return F.linear(self._before.second(), *self._checked().tensors)  # pyrefly: ignore[bad-argument-type] bends
        return self.start()[self._pairs.count :]  # pyrefly: ignore[unsupported-operation] as above


Below = Source | Stepped


class Members(Entry):
    """The derivatives of one value, below the levels and as the levels show them."""

    def __init__(self, levels: InnerLevels, below: Below, summed: bool) -> None:
        super().__init__(self._lifted, None)
        self._levels, self.below, self._summed = levels, below, summed

    def _lifted(self) -> Tensor:
        with self._levels.left():
            rows = self.below.rows()
        return self._levels.lift(rows, 1)

    @property
    def second(self) -> Tensor | None:
        """Second derivatives."""
        if self._second is None and self.below.bends:
            with self._levels.left():
                second = self.below.second()
                assert second is not None
                second = second[0] if self._summed else second
            self._second = self._levels.lift(second, 0 if self._summed else 1)
        return self._second

    def indexed(self, func: Any, arguments: tuple[Any, ...]) -> "Members | None":
        """Return the derivatives of a part of the value, for an index or `squeeze` without dimensions; else None."""
        index = _basic_index(func, arguments, self.below.value.shape[1:])
        if index is None:
            return None
        every = slice(None)
        with self._levels.left():
            rows, second = self.below.rows(), self.below.second()
            bent = None if second is None else second[every, every, *index]
            part = Source(self.below.value[every, *index], rows[every, every, *index], bent)
        return Members(self._levels, part, self._summed)


class BelowVmap:
    """The rules; called with an operation, they return its result, or NotImplemented."""

    def __init__(self, form: Form, levels: InnerLevels, count: int) -> None:
        self._levels, self._pairs = levels, Pairs(count, form.summed, form.pairs)

    def __call__(self, follow: Follow[Any], func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation and set the entry of its result."""
        rule = self._linear if func is F.linear else self._elementwise if func in _SMOOTH else None
        if rule is None or not args or not forward_derivatives_are_on():
            return NotImplemented
        entry = follow.get(args[0])
        if entry is None or not (entry.is_dense or (entry.is_identity and func is F.linear)):
            return NotImplemented
        at = entry.below if isinstance(entry, Members) else self._lowered(primal(args[0]), entry)
        with self._levels.left():
            found = None if at is None else rule(at, func, args[1:], kwargs)
        if at is None or found is None:
            return NotImplemented
        out = as_dual(self._levels.lift(found[0], 0))
        below = Stepped(found[0], at, found[1], self._pairs)
        follow.set(out, Members(self._levels, below, self._pairs.summed))
        return out

    def _lowered(self, value: Tensor, entry: Entry) -> Source | None:
        """Take the tensors of an entry out of the levels; None if one belongs to no open level."""
        first, second = None if entry.is_identity else entry.first, entry.second  # which may compute at the levels
        dims = (0, 1, 0 if self._pairs.summed else 1)
        given = (value, first, second)
        with self._levels.left():
            found = [
                None if leaf is None else self._levels.lower(leaf, dim) for leaf, dim in zip(given, dims, strict=True)
            ]
            at, rows, bent = found
            if at is None or [one is None for one in found] != [leaf is None for leaf in given]:
                return None
            return Source(at, rows, bent if bent is None or not self._pairs.summed else bent.unsqueeze(0))

    def _linear(self, at: Below, func: Any, more: Any, kwargs: Any) -> tuple[Tensor, Step] | None:
        if kwargs or not 1 <= len(more) <= 2 or not isinstance(more[0], Tensor):
            return None
        weight, bias = self._levels.constant(more[0]), None
        if weight is None or not _fits(weight, at.value, (None, at.value.shape[-1])):
            return None
        if len(more) == 2 and more[1] is not None:
            bias = self._levels.constant(more[1])
            if bias is None or not _fits(bias, at.value, (len(weight),)):
                return None
        kind = "first" if isinstance(at, Source) and at.is_identity else "linear"
        return F.linear(at.value, weight, bias), Step(kind, (weight,))

    def _elementwise(self, at: Below, func: Any, more: Any, kwargs: Any) -> tuple[Tensor, Step] | None:
        if more or kwargs.keys() - {"inplace"} or kwargs.get("inplace") or not _is_real(at.value):
            return None
        value = func(at.value)
        if func in _TANH:
            return value, Step("tanh", (value,))
        slope, curve = FORMULAS[func](at.value, value)
        return value, Step("function", (slope, torch.zeros_like(slope) if curve is None else curve))


def _basic_index(func: Any, arguments: tuple[Any, ...], shape: Sequence[int]) -> tuple[Any, ...] | None:
    if func in _SQUEEZE and len(arguments) == 1:
        return tuple(0 if size == 1 else slice(None) for size in shape)
    if func is not Tensor.__getitem__:
        return None
    index = arguments[1] if isinstance(arguments[1], tuple) else arguments[1:]
    return index if all(isinstance(part, slice) or type(part) is int for part in index) else None


def _is_real(leaf: Tensor) -> bool:
    return leaf.is_floating_point() and leaf.layout is torch.strided


def _fits(leaf: Tensor, like: Tensor, shape: tuple[int | None, ...]) -> bool:
    """Return whether a constant of a layer has this shape, where None is any size, and all else like the value."""
    return (
        type(leaf) in _TYPES
        and leaf.ndim == len(shape)
        and all(want is None or want == got for want, got in zip(shape, leaf.shape, strict=True))
        and (leaf.dtype, leaf.device, leaf.layout) == (like.dtype, like.device, torch.strided)
        and not leaf.is_inference()
    )


def below_vmap(form: Form, count: int) -> BelowVmap | None:
    """Return the rules, if operations may leave the levels: in eager code, without modes and autocast."""
    if form.of_tensors or len_torch_dispatch_stack() or is_any_autocast_enabled() or not only_overrides():
        return None
    levels = inner_levels()
    return None if levels is None else BelowVmap(form, levels, count)
