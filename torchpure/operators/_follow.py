"""Run a function once and carry more than its value: the interpreter of the forward Laplacian and of Taylor series.

The function runs on dual numbers, at its own level of torch.func, under a function mode. torch's own forward derivative
says which values depend on the variables. For each of them the mode keeps an entry: what an `Algebra` computes by the
rule of the operation. So no program is traced, nothing can be stale, and captured tensors are constants that stay
differentiable.

A value that has a tangent and no entry came from something the mode did not see, such as a transform inside of the
function, or a write in place. Then `Unfollowed` is raised, and the caller differentiates the function by nested
forward derivatives instead. Never a silent zero: the tangents find every such value.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from torchpure import tree
from torchpure.transforms.calls import primal
from torchpure.transforms.engine import (
    as_dual,
    current_level,
    expose,
    forward_derivatives_are_on,
    has_tangent,
    is_variable,
)

from ._kinds import FACTORS, WITH_BIAS, Kind, kind_of
from ._writes import without_write
from .rules import run_composite

E = TypeVar("E")
Shortcut = Callable[["Follow[Any]", Any, tuple[Any, ...], dict[str, Any]], Any]
RETURN_AN_ARGUMENT = frozenset(  # without a write, if there is nothing to do
    {"contiguous", "expand_as", "float", "double", "to", "type_as", "type", "view_as", "conj", "resolve_conj", "real"}
    | {"broadcast_to", "expand", "reshape", "requires_grad_", "squeeze", "__pos__", "positive", "cpu", "resolve_neg"}
    | {"atleast_1d", "atleast_2d", "atleast_3d"}
)
DROPOUTS = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"})
DRAWS = DROPOUTS | {"rrelu", "gumbel_softmax", "fractional_max_pool2d", "fractional_max_pool3d"}
SMOOTH = frozenset({Kind.LINEAR, Kind.SUM, Kind.JOIN, Kind.PRODUCT, Kind.QUOTIENT, Kind.ELEMENTWISE})


class Unfollowed(Exception):  # noqa: N818 no error: the caller takes another way
    """The mode did not see how a value came from the variables."""


class Application(Generic[E]):
    """One operation on primal values, some of which have entries; immutable."""

    def __init__(self, func: Callable[..., Any], leaves: list[Any], structure: tree.Structure, entries: dict[int, E]):
        self.func, self.entries = func, entries
        self.positions = list(entries)
        self.leaves, self._structure = leaves, structure
        self.kept: list[int] = []  # which tensors of the result depend on the variables

    @property
    def values(self) -> list[Tensor]:
        """The operands that have entries."""
        return [self.leaves[position] for position in self.positions]

    def raw(self, *values: Tensor) -> Any:
        """Run the operation with other operands in the places of those that have entries."""
        leaves = list(self.leaves)
        for position, value in zip(self.positions, values, strict=True):
            leaves[position] = value
        args, kwargs = tree.unflatten(self._structure, leaves)
        return self.func(*args, **kwargs)

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments and keywords of the operation."""
        return tree.unflatten(self._structure, self.leaves)

    def with_func(self, func: Callable[..., Any]) -> "Application[E]":
        """Return another operation on the same operands."""
        return Application(func, self.leaves, self._structure, self.entries)

    def with_copied_target(self) -> "Application[E]":
        """Return the operation on a copy of its first operand, which is overwritten while its derivatives need it."""
        return Application(self.func, [self.leaves[0].clone(), *self.leaves[1:]], self._structure, self.entries)

    def without(self, constant: Callable[[int, Any], Any]) -> "Application[E]":
        """Return the operation with `constant(position, operand)` in place of each operand that has no entry."""
        leaves = [
            leaf if position in self.entries else constant(position, leaf) for position, leaf in enumerate(self.leaves)
        ]
        other = Application(self.func, leaves, self._structure, self.entries)
        other.kept = self.kept
        return other

    def call(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Run the operation as `raw` does; return the tensors that depend on the variables."""
        outputs = tree.leaves(self.raw(*values))
        return tuple(outputs[number] for number in self.kept)

    def one(self, *values: Tensor) -> Tensor:
        """Run the operation, whose result is one tensor."""
        (out,) = self.call(*values)
        return out


class Algebra(Protocol[E]):
    """The rules for one kind of entry; each returns an entry for each kept result."""

    composites: dict[Any, Callable[..., Any]]  # operations that are followed as simpler ones

    def linear(self, app: Application[E]) -> list[E]:
        """Apply an operation that is linear in the operands that have entries."""
        ...

    def affine(self, app: Application[E]) -> list[E]:
        """Apply an operation whose second derivatives are zero."""
        ...

    def product(self, app: Application[E]) -> list[E]:
        """Apply an operation that is linear in each of two operands."""
        ...

    def elementwise(self, app: Application[E], value: Tensor) -> list[E]:
        """Apply a function to each entry of one operand."""
        ...

    def generic(self, app: Application[E]) -> list[E]:
        """Apply any operation."""
        ...


class Follow(TorchFunctionMode, Generic[E]):
    """Carries an entry for each value that depends on the variables."""

    def __init__(self, algebra: Algebra[E], shortcut: "Shortcut | None" = None) -> None:
        """Start without entries. A shortcut runs an operation and sets its entry, or returns NotImplemented."""
        super().__init__()
        self._algebra, self._shortcut, self._level = algebra, shortcut, current_level()
        self._entries: Any = WeakIdKeyDictionary()

    def set(self, value: Tensor, entry: E) -> None:
        """Store the entry of a value as it is now."""
        self._entries[value] = entry, value._version

    def get(self, value: Any) -> E | None:
        """Return the entry of a value; None for a constant.

        Raises:
            Unfollowed: the value depends on the variables in a way that the mode did not see.
        """
        if not is_variable(value):
            return None
        entry, version = self._entries.get(value, (None, 0))
        if entry is not None and version == value._version:
            return entry
        if not has_tangent(value):
            return None
        raise Unfollowed  # without an entry, or a view of it was written to

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and the rule for its entries."""
        kwargs = kwargs or {}
        if current_level() != self._level:  # a transform inside of the function
            raise Unfollowed
        if self._shortcut and (out := self._shortcut(self, func, args, kwargs)) is not NotImplemented:
            return out
        leaves, structure = tree.flatten((args, kwargs))
        found = ((number, self.get(leaf)) for number, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
        entries = {number: entry for number, entry in found if entry is not None}
        if not entries or func is expose:
            return func(*args, **kwargs)
        if (out := self._as_simpler_operations(func, args, kwargs)) is not NotImplemented:
            return out
        app = Application(func, [primal(leaf) if is_variable(leaf) else leaf for leaf in leaves], structure, entries)
        if (pure := without_write(func)) is not None:
            return self._write(app.with_func(pure), leaves[0])
        if kind_of(func) is Kind.ELEMENTWISE and kwargs.get("inplace"):
            return self._write(app.with_func(partial(_not_in_place, func)), leaves[0])
        if kind_of(func) in SMOOTH and forward_derivatives_are_on():
            out = self._on_primals(app, leaves)
        else:
            out = func(*args, **kwargs)
        _refuse_writes(func, args, kwargs, leaves, out)
        outputs = tree.leaves(out)
        app.kept = [number for number, leaf in enumerate(outputs) if is_variable(leaf) and has_tangent(leaf)]
        kept = [outputs[number] for number in app.kept]
        if kept and not any(leaf is one for leaf in leaves for one in kept):
            for leaf, entry in zip(kept, self._rule(app, kept), strict=True):
                self.set(leaf, entry)
        return out

    def _as_simpler_operations(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation as those that it is made of; NotImplemented if it is none of these."""
        if func not in self._algebra.composites:
            return NotImplemented
        with self:
            return run_composite(self._algebra.composites, func, args, kwargs)

    def _write(self, app: Application[E], target: Any) -> Any:
        """Write what an operation returns into its first operand."""
        app = app.with_copied_target()
        value = app.raw(*app.values)
        same = isinstance(target, Tensor) and (value.shape, value.dtype) == (target.shape, target.dtype)
        if not same or not forward_derivatives_are_on():
            raise Unfollowed
        app.kept = [0]
        (entry,) = self._rule(app, [value])
        target.copy_(as_dual(value))
        self.set(target, entry)
        return target

    def _on_primals(self, app: Application[E], leaves: list[Any]) -> Any:
        """Run an operation whose tangents nobody needs, and mark its results as dependent."""
        outputs, structure = tree.flatten(app.raw(*app.values))
        origin = {id(value): leaves[position] for position, value in zip(app.positions, app.values, strict=True)}
        marked = [
            origin[id(leaf)] if id(leaf) in origin else as_dual(leaf) if is_variable(leaf) else leaf for leaf in outputs
        ]
        return tree.unflatten(structure, marked)

    def _rule(self, app: Application[E], outputs: Sequence[Tensor]) -> list[E]:
        kind, positions = kind_of(app.func), app.positions
        if kind is Kind.AFFINE:
            return self._algebra.affine(app)
        if kind in {Kind.SUM, Kind.JOIN}:
            return self._algebra.linear(app.without(_zero_number if kind is Kind.SUM else _zero_tensor))
        if kind in {Kind.LINEAR, Kind.QUOTIENT} and positions == [0]:
            return self._algebra.linear(app)
        if kind is Kind.PRODUCT and len(outputs) == 1:
            factors = FACTORS.get(app.func.__name__, range(len(app.leaves)))
            if set(positions) <= set(factors) and len(positions) <= 2:
                app = app.without(partial(_no_constant, app.func, factors))
                return self._algebra.linear(app) if len(positions) == 1 else self._algebra.product(app)
        if kind is Kind.ELEMENTWISE and len(positions) == 1 and len(outputs) == 1:
            (value,) = app.values
            if value.shape == outputs[0].shape and not value.is_complex() and not outputs[0].is_complex():
                return self._algebra.elementwise(app, primal(outputs[0]))
        return self._algebra.generic(app)


def _not_in_place(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return func(*args, **{**kwargs, "inplace": False})


def _zero_tensor(position: int, leaf: Any) -> Any:
    return leaf.new_zeros(()).expand(leaf.shape) if is_variable(leaf) else leaf


def _zero_number(position: int, leaf: Any) -> Any:
    return 0 if position < 2 and isinstance(leaf, int | float | complex) else _zero_tensor(position, leaf)


def _no_constant(func: Any, factors: Sequence[int], position: int, leaf: Any) -> Any:
    """Remove the bias of a layer, or the first operand of `addmm`."""
    if position in factors or not isinstance(leaf, Tensor):
        return leaf
    return None if func.__name__ in WITH_BIAS else _zero_tensor(position, leaf)


def _refuse_writes(func: Any, args: Any, kwargs: Any, leaves: list[Any], out: Any) -> None:
    """Raise Unfollowed if an operation wrote into one of its arguments."""
    name = func.__name__
    if out is not None and not any(leaf is out for leaf in leaves if isinstance(leaf, Tensor)):
        if name in DRAWS or (kwargs.get("dropout_p") and kwargs.get("training", True)):  # a rule would draw again
            raise Unfollowed
        return
    writes = bool(kwargs.get("inplace")) or (len(args) > 3 and bool(args[3]))
    if name not in RETURN_AN_ARGUMENT and (name not in DROPOUTS or writes):
        raise Unfollowed
