"""Operations for torch's autograd: tensors pass through one, everything else waits here; parts of their rules."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import StructureError, TransformError

from ._arguments import is_variable
from ._around import Around, meetings, without
from ._describe import describe_function
from ._levels import fresh, functorch, torch_vjp, with_room
from ._replacing import kinds, replacing
from ._seen import all_seen

_HERE: Any = object()  # the place of a tensor
Who = Callable[[], str]  # says in errors whose tree it is


class Packed:
    """A tree of which the tensors are taken out and put back."""

    __slots__ = ("_leaves", "_structure")

    def __init__(self) -> None:
        self._leaves: list[Any] = []
        self._structure: Any = None

    def take(self, values: Tree, who: Who | None = None) -> tuple[Tensor, ...]:
        """Return the tensors of a tree, and remember it.

        Where there was a tree before this one must be like it, but for the order of keys; that of the first stays.

        Raises:
            StructureError: it has another structure, or a tensor where the first has none, or the other way round.
        """
        leaves, structure = tree.flatten(values)
        if self._structure is not None:
            leaves = self._again(leaves, structure, values, who or (lambda: "a function that returns several things"))
        else:
            self._structure = structure
            self._leaves = [_HERE if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return tuple(all_seen(leaf for leaf in leaves if isinstance(leaf, Tensor)))

    def _again(self, leaves: list[Any], structure: Any, values: Tree, who: Who) -> list[Any]:
        if structure != self._structure:
            leaves = tree.ordered(self._structure, values, who())
        for i, (first, leaf) in enumerate(zip(self._leaves, leaves, strict=True)):
            if (first is _HERE) is not isinstance(leaf, Tensor):
                path, wanted = tree.paths(self._whole())[i], "a tensor" if first is _HERE else tree.describe(first)
                raise StructureError(f"{who()}: at `{path}`: wanted {wanted}, got {tree.describe(leaf)}")
        return leaves

    def put(self, tensors: Sequence[Any]) -> Tree:
        """Return the tree with other values in the places of its tensors."""
        rest = iter(tensors)
        return tree.unflatten(self._structure, [next(rest) if leaf is _HERE else leaf for leaf in self._leaves])

    def match(self, who: str, other: Tree) -> list[Any]:
        """List what a tree of the same structure, or with None for a part of it, holds in the places of the tensors.

        Raises:
            StructureError: the structures differ.
        """
        column = tree.align(self._structure, self._whole(), other, who)
        return [value for value, leaf in zip(column, self._leaves, strict=True) if leaf is _HERE]

    def paths(self) -> list[str]:
        """Name each tensor."""
        names = tree.paths(self._whole())
        return [name for name, leaf in zip(names, self._leaves, strict=True) if leaf is _HERE]

    @property
    def structure(self) -> Any:
        """The structure of the tree: hashable."""
        return self._structure

    def _whole(self) -> Tree:
        return tree.unflatten(self._structure, [tree.LEAF if leaf is _HERE else leaf for leaf in self._leaves])


class Call:
    """The arguments of one call: those at `static` positions as they are, of the others the tensors.

    After them come the tensors of what is around the call, which its functions are to find whenever they run.
    """

    def __init__(self, fn: Callable[..., Any], static: Sequence[int], args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.static = {number % len(args): args[number % len(args)] for number in static}
        self.inputs, self.outputs = Packed(), Packed()
        self._around = Around()
        self.meets = set[int]()  # the axes around over which members meet in here, by their places
        given = self.inputs.take(tuple(arg for i, arg in enumerate(args) if i not in self.static))
        self.tensors = (*given, *all_seen(self._around.tensors))
        self._count = len(args)

    def arguments(self, tensors: Sequence[Tensor]) -> list[Any]:
        """Return all arguments, in their order."""
        rest = iter(self.inputs.put(tensors))
        return [self.static[i] if i in self.static else next(rest) for i in range(self._count)]

    def around(self, tensors: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Put around a function what was around the call."""
        count = len(self._around.tensors)
        return self._around.again(tensors[len(tensors) - count :])

    @contextmanager
    def around_all(self, tensors: Sequence[Tensor], marks: Sequence[bool]) -> Iterator[None]:
        """Put around a rule what was around the call, but for the axis whose members it has all at once, as marked."""
        with self.around(tensors), without(self._around.names(marks[len(marks) - len(self._around.tensors) :])):
            yield

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        with replacing(), self.around(tensors), meetings() as found:
            values = self.outputs.take(self.fn(*self.arguments(tensors)))
        return self.shared_out(found, values, tensors)

    def shared_out(self, names: set[str], values: Sequence[Any], tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return values with a copy for each member, over axes over which members have met; these are some."""
        self.meets.update(self._around.places(names))
        return tuple(self.owned(values, tensors))

    def owned(self, leaves: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
        """Return leaves with a copy for each member, over the axes over which members meet.

        Where members meet, a sum over them is what belongs to each. Of a cotangent that has no members nobody could
        tell whether it is each member's or already the sum of all.
        """
        result = list(leaves)
        for place in self.meets:
            index = tensors[len(tensors) - len(self._around.tensors) + place]
            result = [
                torch.where(index < 0, 0, leaf) if isinstance(leaf, Tensor) and is_variable(leaf) else leaf
                for leaf in result
            ]
        return result

    def again(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value once more, for a backward pass."""
        return self.value(*tensors)


def check_callable(who: str, fn: Any) -> None:
    """Check that what is to be transformed, or gets a rule, is a function.

    Raises:
        TransformError: it is not.
    """
    if not callable(fn):
        hint = ". Pass the function itself, and its arguments to what comes back" if isinstance(fn, Tensor) else ""
        raise TransformError(f"{who}: wanted a function, got {tree.describe(fn)}{hint}")


def check_static(who: str, numbers: Any) -> tuple[int, ...]:
    """Return which arguments have no derivative.

    Raises:
        TransformError: these are no positions.
    """
    if not isinstance(numbers, Sequence) or not all(type(number) is int for number in numbers):
        raise TransformError(f"{who}: nondiff_argnums must be a tuple of ints, got {tree.describe(numbers)}")
    return tuple(numbers)


def positional(
    who: str, fn: Callable[..., Any], static: Sequence[int], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Return all arguments of a call by position, as rules get them: those given by name, and defaults, too.

    Raises:
        TransformError: one has no position, or `static` names one that there is not.
    """
    defaults = getattr(fn, "__defaults__", None)
    if kwargs or (defaults and len(args) < fn.__code__.co_argcount):
        args = _bound(who, fn, args, kwargs)
    for number in static:
        if not -len(args) <= number < len(args):
            raise TransformError(
                f"{who}: nondiff_argnums={tuple(static)} does not fit the {len(args)} arguments of "
                f"{describe_function(fn)}: there is no argument {number}"
            )
    return args


def _bound(who: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    try:
        known = signature(fn)
    except (TypeError, ValueError):  # a function of C
        names = ", ".join(map(repr, kwargs))
        raise TransformError(
            f"{who}: {describe_function(fn)} does not tell where its arguments {names} stand, and a rule takes them by "
            "position: pass them by position"
        ) from None
    bound = known.bind(*args, **kwargs)
    bound.apply_defaults()
    alone = [repr(name) for name in kwargs if name in bound.kwargs]
    if alone:
        raise TransformError(
            f"{who}: {describe_function(fn)} takes {', '.join(alone)} by name alone, and a rule takes its arguments by "
            "position: let the function take them by position too, or bind them in a function around"
        )
    return bound.args


def like_number(part: Any, leaf: Tensor) -> Any:
    """Make a tensor of a Python number that stands for one of shape (); everything else stays as it is."""
    if type(part) not in {int, float, complex} or leaf.ndim or (type(part) is complex and not leaf.is_complex()):
        return part
    return torch.full((), part, dtype=leaf.dtype, device=leaf.device)


def save(ctx: Any, call: Any, tensors: Sequence[Tensor], output: Sequence[Tensor]) -> None:
    """Keep in a context what both rules need."""
    ctx.call = call
    ctx.mark_non_differentiable(*(out for out in output if not is_variable(out)))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def followed(tensors: Sequence[Tensor]) -> bool:
    """Tell whether derivatives or members are computed here; inside an operation none are."""
    return (
        functorch.peek_interpreter_stack() is not None
        or (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in tensors))
        or (forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled())
    )


def filled(values: Sequence[Any], places: Sequence[int], others: Sequence[Any]) -> list[Any]:
    """Return the values with others in some places."""
    every = list(values)
    for i, other in zip(places, others, strict=True):
        every[i] = other
    return every


def zeros_for(tensors: Sequence[Tensor], parts: Sequence[Any]) -> list[Any]:
    """Fill in zeros where a variable has no tangent or cotangent; None stays for what can have none."""
    return [
        torch.zeros_like(like) if part is None and is_variable(like) else part
        for part, like in zip(parts, tensors, strict=True)
    ]


def transposed(
    linear: Callable[..., Sequence[Tensor]], likes: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor]:
    """Return the transpose of a linear function of tensors like these, at these cotangents."""
    _, pull = torch_vjp(lambda *values: tuple(linear(*values)), *(torch.zeros_like(like) for like in likes))
    return list(pull(tuple(cotangents)))


def differentiable(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Let other transforms see what the forward rule of an operation computes: torch runs it without derivatives.

    Who changes the result in place changes its tangent too: so a tangent that the rule hands on is copied, and each has
    room for all members that its result may have.
    """

    @wraps(rule)
    def run(ctx: Any, *tangents: Any) -> Any:
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            out = rule(ctx, *tangents)
            several = isinstance(out, tuple | list)
            own = fresh(out if several else (out,), tangents)
            if functorch.TransformType.Vmap in kinds():
                given = (*tangents, *ctx.saved_tensors)
                own = tuple(with_room(leaf, given) for leaf in own)
            return own if several else own[0]

    run.differentiable = True  # pyrefly: ignore[missing-attribute] for who would do it again
    return run


def primals(ctx: Any) -> list[Tensor]:
    """Return the saved tensors in a forward rule, without the tangents that the rule has been given by themselves."""
    return [primal(leaf) for leaf in ctx.saved_tensors]


def primal(leaf: Tensor) -> Tensor:
    """Return a tensor without the tangent of the innermost forward derivative."""
    if not is_variable(leaf):
        return leaf
    if not functorch.is_batchedtensor(leaf):
        return forward_ad.unpack_dual(leaf).primal
    opened, dim = functorch.maybe_get_level(leaf), functorch.maybe_get_bdim(leaf)
    return functorch._add_batch_dim(primal(functorch.get_unwrapped(leaf)), dim, opened)


def alive(leaf: Any) -> Any:
    """Return what a tensor of a closed level holds: torch's operations take it out themselves, its transforms do not.

    A backward pass may run after the level in which its tensors were saved.
    """
    while isinstance(leaf, Tensor) and functorch.is_gradtrackingtensor(leaf) and functorch.maybe_get_level(leaf) < 0:
        leaf = functorch.get_unwrapped(leaf)
    return leaf
