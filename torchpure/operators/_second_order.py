"""Values, first derivatives along D directions, and a form of the second derivatives: one pass over the function.

For the trace this is the forward Laplacian (Li et al. 2023, arXiv:2307.08214), with collapsed second derivatives
(Dangel et al. 2025, arXiv:2505.13644). Where the pass does not apply, nested forward derivatives give the same numbers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn import functional as F

from torchpure import tree
from torchpure._types import Tree
from torchpure.transforms import jvp, vmap
from torchpure.transforms.engine import is_variable

from ._below_vmap import Members, below_vmap
from ._follow import Application, Follow, Unfollowed
from ._forms import Entry, Form
from ._formulas import first_and_second
from .rules import COMPOSITES, closed_form, deriving, is_kinked, kink_of, warn_of_kinks

Call = Callable[..., Tree]
Start = Callable[[int, Tensor], Any]  # (number, variable) -> its entry


class Pass(NamedTuple):
    """The result: trees like the value. Leaves that are no variables are None in `first` and `second`."""

    value: Tree
    first: Tree  # (D, *value)
    second: Tree  # (*value), or (K, *value)
    aux: Tree


class Rows(NamedTuple):
    """First derivatives."""

    value: Tree
    first: Tree  # (D, *value)
    aux: Tree


class _Rows:
    """First derivatives of the results of a linear operation, taken when the first of them is asked for."""

    def __init__(self, app: Application[Entry], entries: Sequence[Entry]) -> None:
        self._app, self._entries = app, entries
        self._found: tuple[Tensor, ...] | None = None
        self._constants = [leaf for leaf in app.leaves if isinstance(leaf, Tensor) and not leaf.is_inference()]
        self._versions = [leaf._version for leaf in self._constants]

    def get(self, number: int) -> Tensor:
        """Return those of one result.

        Raises:
            Unfollowed: an operand was written to since.
        """
        if self._found is None:
            if self._versions != [leaf._version for leaf in self._constants]:
                raise Unfollowed
            self._found = _applied(self._app, [entry.first for entry in self._entries])
        return self._found[number]


class SecondOrder:
    """The rules of the forward pass."""

    composites = COMPOSITES

    def __init__(self, form: Form) -> None:
        self.form = form
        self.kink: str | None = None  # the first activation that is linear between kinks

    def linear(self, app: Application[Entry]) -> list[Entry]:
        """Apply the operation to all derivatives."""
        entries = list(app.entries.values())
        if isinstance(entries[0], Members) and app.positions == [0]:
            part = entries[0].indexed(app.func, app.arguments[0])
            if part is not None:
                return [part]
        rows = _Rows(app, entries)
        starts = [partial(rows.get, number) for number in range(len(app.kept))]
        if any(isinstance(leaf, Tensor) and leaf.is_inference() for leaf in app.leaves):  # it has no version
            starts = [start() for start in starts]
        if all(entry.second is None for entry in entries):
            return [Entry(one, None) for one in starts]
        seconds = [self._filled(entry) for entry in entries]
        second = app.call(*seconds) if self.form.summed else _applied(app, seconds)
        return [Entry(*both) for both in zip(starts, second, strict=True)]

    def affine(self, app: Application[Entry]) -> list[Entry]:
        """Push all derivatives through the operation."""
        entries = list(app.entries.values())
        first = _push(app, [entry.first for entry in entries])
        if all(entry.second is None for entry in entries):
            return [Entry(one, None) for one in first]
        return [Entry(*both) for both in zip(first, self._push_seconds(app, entries), strict=True)]

    def product(self, app: Application[Entry]) -> list[Entry]:
        """Apply (ab)″ = a″b + ab″ + 2a′b′."""
        a, b = app.values
        left, right = app.entries.values()

        def rule(da: Tensor, db: Tensor) -> Tensor:
            return app.one(da, b) + app.one(a, db)

        second = self.form.cross(vmap(app.one), left.first, right.first)
        if left.second is not None or right.second is not None:
            parts = self._filled(left), self._filled(right)
            second = second + (rule(*parts) if self.form.summed else vmap(rule)(*parts))
        return [Entry(vmap(rule)(left.first, right.first), second)]

    def elementwise(self, app: Application[Entry], value: Tensor) -> list[Entry]:
        """Apply f(u)″ = f′u″ + f″u′u′."""
        (entry,) = app.entries.values()
        (at,) = app.values
        self.note_kink(app, entry)
        d1, d2 = first_and_second(app.func, app.one, at, value)
        d2 = None if is_kinked(app.func) else d2
        first = d1 * entry.first
        if d2 is None:
            return [Entry(first, None if entry.second is None else d1 * entry.second)]
        form = self.form
        bent = d2 * form.collapse(form.left(entry.first) * form.right(entry.first))
        return [Entry(first, bent if entry.second is None else bent + d1 * entry.second)]

    def note_kink(self, app: Application[Entry], entry: Entry) -> None:
        """Keep the name of the first activation that is linear between kinks."""
        if entry.second is None and self.kink is None:
            self.kink = kink_of(app.func)

    def generic(self, app: Application[Entry]) -> list[Entry]:
        """Differentiate the operation by nested forward derivatives."""
        if (closed := self._closed(app)) is not None:
            return closed
        entries = list(app.entries.values())
        firsts = [entry.first for entry in entries]
        first = deriving(app.func, lambda: _push(app, firsts))
        second = deriving(app.func, lambda: nested_second(app.call, app.values, firsts, self.form))
        if any(entry.second is not None for entry in entries):
            pushed = self._push_seconds(app, entries)
            second = [one + other for one, other in zip(second, pushed, strict=True)]
        return [Entry(*both) for both in zip(first, second, strict=True)]

    def _closed(self, app: Application[Entry]) -> list[Entry] | None:
        """Apply the closed form of an operation of one operand, if it has one."""
        if len(app.entries) != 1:
            return None
        ((entry,), (at,)) = app.entries.values(), app.values
        rule = closed_form(app.func, at, lambda build: app.with_func(build).raw(at))
        if rule is None:
            return None
        first, form, second = rule.push(entry.first), self.form, None
        if rule.bend is not None:
            second = rule.bend(form.left(entry.first), form.right(entry.first), form.collapse)
        if entry.second is not None:
            pushed = rule.push(entry.second)
            second = pushed if second is None else second + pushed
        constant = Entry(torch.zeros_like(first), None)
        return [Entry(first, second) if number == rule.result else constant for number in app.kept]

    def _push_seconds(self, app: Application[Entry], entries: list[Entry]) -> tuple[Tensor, ...]:
        seconds = [self._filled(entry) for entry in entries]
        return _push_one(app, seconds) if self.form.summed else _push(app, seconds)

    def _filled(self, entry: Entry) -> Tensor:
        if entry.second is not None:
            return entry.second
        return torch.zeros_like(self.form.collapse(self.form.left(entry.first)))


def _push_one(app: Application[Any], tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return jvp(app.call, tuple(app.values), tuple(tangents))[1]


def _applied(app: Application[Any], rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Apply a linear operation to each row."""
    if app.func is F.linear:  # it takes rows: one product of matrices
        return app.call(*rows)
    return vmap(app.call)(*rows)


def _push(app: Application[Any], tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return vmap(lambda *parts: _push_one(app, parts))(*tangents)


def nested_second(call: Call, values: Sequence[Tensor], firsts: Sequence[Tensor], form: Form) -> list[Tensor]:
    """Return the form of the second derivatives along the directions, by forward derivatives of forward derivatives."""

    def along(lefts: list[Tensor], rights: list[Tensor]) -> Tree:
        once = lambda *at: jvp(call, at, tuple(rights))[1]  # noqa: E731
        return jvp(once, tuple(values), tuple(lefts))[1]

    pairs = vmap(along)([form.left(one) for one in firsts], [form.right(one) for one in firsts])
    return tree.map(form.collapse, pairs)


def second_order(call: Call, leaves: Sequence[Tensor], directions: Sequence[Tensor], form: Form) -> Pass:
    """Differentiate `call(*leaves) -> (value, aux)` along directions, of shape (D, *leaf) for each leaf."""
    start = lambda number, leaf: Entry(directions[number], None)  # noqa: E731
    return forward_pass(call, leaves, directions, SecondOrder(form), start)


def forward_pass(
    call: Call,
    leaves: Sequence[Tensor],
    directions: Sequence[Tensor],
    algebra: SecondOrder,
    start: Start,
    with_first: bool = True,
) -> Pass:
    """Differentiate along directions by these rules; `start(number, leaf)` is the entry of a variable.

    Without `with_first`, first derivatives that nothing needs are not computed, and `first` has None for tensors.
    """
    if is_dynamo_compiling():  # it traces no function modes
        return _nested(call, leaves, directions, algebra.form)
    try:
        starts = [start(*each) for each in enumerate(leaves)]
        return _followed(call, leaves, algebra, starts, len(directions[0]), with_first)
    except Unfollowed:
        return _nested(call, leaves, directions, algebra.form)


def _followed(
    call: Call, leaves: Sequence[Tensor], algebra: SecondOrder, starts: Sequence[Any], size: int, with_first: bool
) -> Pass:
    form = algebra.form

    def run(*at: Tensor) -> Any:
        mode = Follow(algebra, below_vmap(form, size))
        for leaf, entry in zip(at, starts, strict=True):
            mode.set(leaf, entry)
        with mode:
            value, aux = call(*at)
        outputs, structure = tree.flatten(value)
        entries = [mode.get(leaf) or _zero(leaf, size) for leaf in outputs]
        if algebra.kink and all(entry is None or entry.second is None for entry in entries):
            warn_of_kinks(algebra.kink)
        firsts = [entry.first if entry and with_first else None for entry in entries]
        seconds = [_second(entry, form) for entry in entries]
        first, second = (tree.unflatten(structure, leaves) for leaves in (firsts, seconds))
        return value, (first, second, aux)

    value, _, (first, second, aux) = jvp(run, tuple(leaves), tuple(map(torch.ones_like, leaves)), has_aux=True)
    return Pass(value, first, second, aux)


def _zero(leaf: Any, size: int) -> Entry | None:
    return Entry(leaf.new_zeros((size, *leaf.shape)), None) if is_variable(leaf) else None


def _second(entry: Entry | None, form: Form) -> Tensor | None:
    if entry is None or entry.second is not None:
        return None if entry is None else entry.second
    return torch.zeros_like(form.collapse(form.left(entry.first)))


def _nested(call: Call, leaves: Sequence[Tensor], directions: Sequence[Tensor], form: Form) -> Pass:
    value, aux = call(*leaves)
    alone = lambda *at: call(*at)[0]  # noqa: E731
    first = vmap(lambda *parts: jvp(alone, tuple(leaves), parts)[1])(*directions)
    return Pass(value, first, nested_second(alone, leaves, directions, form), aux)


def rows_along(call: Call, leaves: Sequence[Tensor], directions: Sequence[Tensor]) -> Rows:
    """Differentiate `call(*leaves) -> (value, aux)` once along each direction, of shape (D, *leaf) for each leaf."""

    def along(*direction: Tensor) -> Any:
        return jvp(call, tuple(leaves), direction, has_aux=True)

    return Rows(*vmap(along, out_dims=(None, 0, None))(*directions))
