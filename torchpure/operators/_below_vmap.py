"""Rules of second order that run below the levels of vmap and of the pass, on all members at once.

In eager code a small operation costs less than its way through the levels. So the common operations of a network,
`linear` and activations, compute their value and their derivatives outside of the levels; only the value goes in again.
The function itself runs in each call: no plan is kept, and nothing can be stale. All other operations, and arguments
that these rules do not know, take the usual rules, which read the entries made here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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
from ._formulas import FORMULAS, formula_of
from .rules import is_kinked

_TYPES = frozenset({Tensor, Parameter})
_TANH = frozenset({torch.tanh, Tensor.tanh, F.tanh})
_SMOOTH = frozenset(func for func in FORMULAS if not is_kinked(func))  # the usual rules warn of kinks
Rows = Callable[[], Tensor]


class Derivatives(NamedTuple):
    """A value and its derivatives below the levels, where the members are one dimension: N, or one if they share it."""

    value: Tensor  # (N, *value)
    rows: Rows | None  # -> (D, N, *value), computed below the levels; None: the identity
    second: Tensor | None  # (N, *value) or (K, N, *value); None: zero


class Members(Entry):
    """The derivatives of one value, below the levels and as the levels show them."""

    def __init__(self, levels: InnerLevels, below: Derivatives, summed: bool) -> None:
        second = below.second
        super().__init__(self._lifted, None if second is None else levels.lift(second, 0 if summed else 1))
        self._levels, self.below = levels, below

    def _lifted(self) -> Tensor:
        assert self.below.rows is not None
        with self._levels.left():
            rows = self.below.rows()
        return self._levels.lift(rows, 1)


class BelowVmap:
    """The rules; called with an operation, they return its result, or NotImplemented."""

    def __init__(self, form: Form, levels: InnerLevels) -> None:
        self._form, self._levels = form, levels

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
            found = rule(at, func, args[1:], kwargs)
        if found is None:
            return NotImplemented
        out = as_dual(self._levels.lift(found.value, 0))
        follow.set(out, Members(self._levels, found, self._form.summed))
        return out

    def _lowered(self, value: Tensor, entry: Entry) -> Derivatives:
        """Take the tensors of an entry out of the levels."""
        first, second = None if entry.is_identity else entry.first, entry.second  # it may compute at the levels
        with self._levels.left():
            rows = None if first is None else self._levels.lower(first, 1)
            bent = None if second is None else self._levels.lower(second, 0 if self._form.summed else 1)
            return Derivatives(self._levels.lower(value, 0), None if rows is None else lambda: rows, bent)

    def _linear(self, at: Derivatives, func: Any, more: Any, kwargs: Any) -> Derivatives | None:
        """Apply the matrix to each derivative; rows that nothing asks for are not computed."""
        if kwargs or not 1 <= len(more) <= 2 or not isinstance(more[0], Tensor):
            return None
        weight, bias = self._levels.constant(more[0]), None
        if weight is None or not _fits(weight, at.value, (None, at.value.shape[-1])):
            return None
        if len(more) == 2 and more[1] is not None:
            bias = self._levels.constant(more[1])
            if bias is None or not _fits(bias, at.value, (len(weight),)):
                return None
        version = weight._version

        def rows() -> Tensor:
            if weight._version != version:  # it was written to since
                raise Unfollowed
            return weight.mT.contiguous().unsqueeze(1) if at.rows is None else F.linear(at.rows(), weight)

        second = None if at.second is None else F.linear(at.second, weight)
        return Derivatives(F.linear(at.value, weight, bias), _once(rows), second)

    def _elementwise(self, at: Derivatives, func: Any, more: Any, kwargs: Any) -> Derivatives | None:
        """Apply f(u)″ = f′u″ + f″u′u′."""
        if more or kwargs.keys() - {"inplace"} or kwargs.get("inplace") or not _is_real(at.value):
            return None
        assert at.rows is not None
        value, before, form = func(at.value), at.rows(), self._form
        if func in _TANH:  # f″ = -2 f f′
            slope = 1 - value * value
            rows = slope * before
            bend, turned = -2 * value, form.collapse(form.left(rows) * form.right(before))
        else:
            slope, bend = formula_of(func)(at.value, value)
            rows = slope * before
            turned = form.collapse(form.left(before) * form.right(before))
        second = bend * turned if at.second is None else torch.addcmul(slope * at.second, bend, turned)
        return Derivatives(value, lambda: rows, second)


def _once(rows: Rows) -> Rows:
    found: list[Tensor] = []

    def known() -> Tensor:
        if not found:
            found.append(rows())
        return found[0]

    return known


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


def below_vmap(form: Form) -> BelowVmap | None:
    """Return the rules, if operations may leave the levels: in eager code, without modes and autocast."""
    if form.of_tensors or len_torch_dispatch_stack() or is_any_autocast_enabled() or not only_overrides():
        return None
    levels = inner_levels()
    return None if levels is None else BelowVmap(form, levels)
