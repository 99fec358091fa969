"""Rules for Jacobians of which blocks are zero: the forward Laplacian that knows which coordinates a value depends on.

The first derivatives of a value are parts, with coordinates tied to dimensions (`jacobians`). A rule here keeps the
parts of an operation that it knows; all rows are stored for others, and as soon as a value depends on all coordinates.
Then the rules of `_second_order` apply.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from ._follow import Application
from ._forms import TRACE, Entry
from ._formulas import first_and_second
from ._kinds import Kind, kind_of
from ._second_order import Call, Pass, SecondOrder, forward_pass
from .jacobians import (
    IS_VIEW,
    Part,
    dense_rows,
    expand_part,
    identity_part,
    merge_parts,
    multiply_parts,
    pair_products,
    pointwise_letters,
    product_letters,
    reduce_part,
    scale_part,
    split_rows,
    view_part,
)
from .rules import BLOCKWISE, is_kinked

_SAME = frozenset({"clone", "contiguous", "neg", "negative", "positive", "double", "float", "alias"})
_SUBTRACT = frozenset({"sub", "subtract", "__sub__"}), frozenset({"rsub", "__rsub__"})  # the second, the first is minus


class Blocks(Entry):
    """The derivatives of one value of which some are known to be zero."""

    def __init__(self, parts: list[Part], second: Tensor | None, sizes: Sequence[int]) -> None:
        super().__init__(lambda: dense_rows(parts, sizes), second)
        self.parts, self.is_dense = parts, False
        self.is_identity = len(sizes) == 1 and second is None and parts[0].unit and parts[0].ties == (0,)


Rule = Callable[[Application[Entry]], list[list[Part]] | None]


def trace(call: Call, leaves: Sequence[Tensor], basis: Sequence[Tensor], with_first: bool = True) -> Pass:
    """Differentiate `call(*leaves) -> (value, aux)` along all coordinates; the second derivatives are the Laplacian."""
    algebra = SparseTrace(leaves)
    return forward_pass(call, leaves, basis, algebra, algebra.start, with_first)


class SparseTrace(SecondOrder):
    """The rules of the forward Laplacian. Entries are `Blocks` until all coordinates matter."""

    composites = BLOCKWISE  # blocks stay known only where each step has a rule

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        super().__init__(TRACE)
        self._sizes = [leaf.numel() for leaf in leaves]
        self._rules: dict[str, Rule] = {
            **dict.fromkeys(IS_VIEW, self._view),
            **dict.fromkeys(_SAME, self._same),
            **dict.fromkeys(("sum", "mean"), self._reduce),
            **dict.fromkeys(("cat", "concat", "concatenate", "stack"), self._join),
        }

    def start(self, number: int, leaf: Tensor) -> Entry:
        """Return the entry of a variable: an identity."""
        return self._entry([identity_part(number, leaf)], None)

    def linear(self, app: Application[Entry]) -> list[Entry]:
        """Apply the operation to each part."""
        kind = kind_of(app.func)
        rule = {Kind.SUM: self._add, Kind.PRODUCT: self._times, Kind.QUOTIENT: self._over}.get(kind)
        rule = rule or self._rules.get(app.func.__name__)
        found = rule(app) if rule and app.arguments[0] and _has_blocks(app) else None
        if found is None:
            return super().linear(app)
        entries = list(app.entries.values())
        seconds: Sequence[Tensor | None] = [None] * len(found)
        if any(entry.second is not None for entry in entries):
            seconds = app.call(*(self._second(entry, value) for entry, value in zip(entries, app.values, strict=True)))
        return [self._entry(*each) for each in zip(found, seconds, strict=True)]

    def product(self, app: Application[Entry]) -> list[Entry]:
        """Apply (ab)″ = a″b + ab″ + 2a′b′ to parts."""
        letters = _letters(app) if _has_blocks(app) else None
        if letters is None:
            return super().product(app)
        (a, b), (left, right) = app.values, (self._parts(entry) for entry in app.entries.values())
        parts = [multiply_parts(part, letters[0], (b, letters[1]), letters[2]) for part in left]
        parts += [multiply_parts(part, letters[1], (a, letters[0]), letters[2]) for part in right]
        terms = [2 * cross for cross in [pair_products(left, right, letters)] if cross is not None]
        one, other = (entry.second for entry in app.entries.values())
        terms += [app.one(da, db) for da, db in ((one, b), (a, other)) if da is not None and db is not None]
        return [self._entry(parts, sum(terms[1:], terms[0]) if terms else None)]

    def elementwise(self, app: Application[Entry], value: Tensor) -> list[Entry]:
        """Apply f(u)″ = f′u″ + f″u′u′ to parts."""
        (entry,), (at,) = app.entries.values(), app.values
        if not isinstance(entry, Blocks):
            return super().elementwise(app, value)
        self.note_kink(app, entry)
        d1, d2 = first_and_second(app.func, app.one, at, value)
        d2 = None if is_kinked(app.func) else d2
        parts = [scale_part(part, d1) for part in entry.parts]
        second = None if entry.second is None else d1 * entry.second
        squares = None if d2 is None else _squares(entry.parts, at.ndim)
        if d2 is not None and squares is not None:
            bent = d2 if isinstance(squares, int) else d2 * squares
            second = bent if second is None else bent + second
        return [self._entry(parts, second)]

    def _entry(self, parts: Sequence[Part], second: Tensor | None) -> Entry:
        parts = merge_parts(parts)
        if all(part.is_dense for part in parts) and len(parts) == len(self._sizes):
            return Entry(dense_rows(parts, self._sizes), second)
        return Blocks(parts, second, self._sizes)

    def _parts(self, entry: Entry) -> list[Part]:
        return entry.parts if isinstance(entry, Blocks) else split_rows(entry.first, self._sizes)

    def _second(self, entry: Entry, value: Tensor) -> Tensor:
        return torch.zeros_like(value) if entry.second is None else entry.second

    def _view(self, app: Application[Entry]) -> list[list[Part]] | None:
        name, (entry,) = app.func.__name__, app.entries.values()
        if name == "__getitem__" and not _is_basic(app.arguments[0][1:]):
            return None
        if any(isinstance(leaf, Tensor | torch.dtype) for leaf in app.leaves[1:]):
            return None
        each = [view_part(part, app.call) for part in self._parts(entry)]
        return [list(parts) for parts in zip(*each, strict=True)]

    def _same(self, app: Application[Entry]) -> list[list[Part]] | None:
        (entry,) = app.entries.values()
        if len(app.leaves) != 1:
            return None
        return [[replace(part, rows=app.one(part.rows), unit=False) for part in self._parts(entry)]]

    def _reduce(self, app: Application[Entry]) -> list[list[Part]] | None:
        (entry,), (value,) = app.entries.values(), app.values
        dims, keepdim = _reduced(app, value.ndim)
        if dims is None:
            return None
        count = prod(value.shape[dim] for dim in dims) if app.func.__name__ == "mean" else 1
        parts = [reduce_part(part, dims, keepdim) for part in self._parts(entry)]
        return [[scale_part(part, 1 / count) if count != 1 else part for part in parts]]

    def _add(self, app: Application[Entry]) -> list[list[Part]] | None:
        if len(app.leaves) != 2 or len(app.arguments[0]) != 2:  # `alpha`
            return None
        shapes = [tuple(leaf.shape) if isinstance(leaf, Tensor) else () for leaf in app.leaves]
        shape = tuple(torch.broadcast_shapes(*shapes))
        parts = []
        for position, entry in app.entries.items():
            minus = app.func.__name__ in _SUBTRACT[1 - position]
            mine = [expand_part(part, shape) for part in self._parts(entry)]
            parts += [scale_part(part, -1) for part in mine] if minus else mine
        return [parts]

    def _times(self, app: Application[Entry]) -> list[list[Part]] | None:
        (position, entry), *_ = app.entries.items()
        number = [leaf for leaf in app.leaves if isinstance(leaf, int | float)]
        tensors = [leaf for leaf in app.leaves if isinstance(leaf, Tensor)]
        if len(tensors) == 1 and len(number) == 1 and len(app.leaves) == 2:
            return [[scale_part(part, number[0]) for part in self._parts(entry)]]
        letters = _letters(app)
        if letters is None or len(tensors) != 2:
            return None
        mine = 0 if tensors[0] is app.leaves[position] else 1
        other = (tensors[1 - mine], letters[1 - mine])
        return [[multiply_parts(part, letters[mine], other, letters[2]) for part in self._parts(entry)]]

    def _over(self, app: Application[Entry]) -> list[list[Part]] | None:
        (entry,) = app.entries.values()
        if len(app.leaves) != 2 or len(app.arguments[0]) != 2:  # `rounding_mode`
            return None
        (value,), by = app.values, app.leaves[1]
        if not isinstance(by, Tensor):
            return [[scale_part(part, 1 / by) for part in self._parts(entry)]]
        letters = pointwise_letters(value.ndim, by.ndim)
        other = (torch.reciprocal(by), letters[1])
        return [[multiply_parts(part, letters[0], other, letters[2]) for part in self._parts(entry)]]

    def _join(self, app: Application[Entry]) -> list[list[Part]] | None:
        """Join parts with the same ties; all operands must depend on the variables in the same way."""
        entries = [self._parts(entry) for entry in app.entries.values()]
        tensors = [leaf for leaf in app.leaves if isinstance(leaf, Tensor)]
        keys = [[(part.leaf, part.axes, part.ties) for part in parts] for parts in entries]
        if len(entries) != len(tensors) or any(key != keys[0] for key in keys):
            return None
        (_, *more), kwargs = app.arguments
        stacks, rank = app.func.__name__ == "stack", tensors[0].ndim
        dim = (more[0] if more else kwargs.get("dim", kwargs.get("axis", 0))) % (rank + stacks)
        if not stacks and any(dim in part.ties for part in entries[0]):
            return None
        call = torch.stack if stacks else torch.cat
        return [
            [
                _joined(group, partial(call, dim=dim - rank - stacks), dim, stacks)
                for group in zip(*entries, strict=True)
            ]
        ]


def _joined(group: Sequence[Part], call: Callable[..., Tensor], dim: int, stacks: bool) -> Part:
    ties = tuple(None if tie is None else tie + (stacks and tie >= dim) for tie in group[0].ties)
    return Part(group[0].leaf, group[0].axes, ties, call([part.rows for part in group]))


def _has_blocks(app: Application[Entry]) -> bool:
    return any(isinstance(entry, Blocks) for entry in app.entries.values())


def _squares(parts: Sequence[Part], rank: int) -> Tensor | int | None:
    """Return Σ over coordinates of squares: 1 for an identity, None for zero."""
    if len(parts) == 1 and parts[0].unit:
        return 1
    letters = pointwise_letters(rank, rank)
    terms = [pair_products([part], [part], letters) for part in parts]
    for number, part in enumerate(parts):
        cross = pair_products([part], parts[number + 1 :], letters)
        terms.append(None if cross is None else 2 * cross)
    found = [term for term in terms if term is not None]
    return sum(found[1:], found[0]) if found else None


def _letters(app: Application[Entry]) -> tuple[str, str, str] | None:
    tensors = [leaf for leaf in app.leaves if isinstance(leaf, Tensor)]
    texts = [leaf for leaf in app.leaves if isinstance(leaf, str)]
    if len(tensors) != 2 or len(app.arguments[0]) < 2 or kind_of(app.func) is not Kind.PRODUCT:
        return None
    return product_letters(app.func.__name__, [leaf.ndim for leaf in tensors], *texts[:1])


def _is_basic(indices: Sequence[Any]) -> bool:
    """Tell whether indices make a view: a list or a tensor would copy."""
    (index,) = indices
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, slice) or type(part) is int for part in parts)


def _reduced(app: Application[Entry], rank: int) -> tuple[list[int] | None, bool]:
    """Return the dimensions of a sum, and whether they stay; None for a form that is not known."""
    (_, *more), kwargs = app.arguments
    given = dict(zip(("dim", "keepdim"), more, strict=False)) | dict(kwargs)
    if len(more) > 2 or not given.keys() <= {"dim", "axis", "keepdim"} or type(given.get("keepdim", False)) is not bool:
        return None, False
    dim = given.get("dim", given.get("axis"))
    dims = range(rank) if dim is None or dim in ((), []) else [dim] if isinstance(dim, int) else list(dim)
    if not all(type(one) is int for one in dims):
        return None, False
    return [one % max(rank, 1) for one in dims] if rank else None, given.get("keepdim", False)
