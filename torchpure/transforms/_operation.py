"""Operations for torch's autograd: tensors pass through one, everything else waits here; parts of their rules."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

from ._arguments import is_variable
from ._levels import functorch, torch_vjp
from ._replacing import replacing
from ._seen import all_seen

_HERE: Any = object()  # the place of a tensor


class Packed:
    """A tree of which the tensors are taken out and put back."""

    __slots__ = ("_leaves", "_structure")

    def __init__(self) -> None:
        self._leaves: list[Any] = []
        self._structure: Any = None

    def take(self, values: Tree) -> tuple[Tensor, ...]:
        """Remember the tree, and return its tensors."""
        self._leaves, self._structure = tree.flatten(values)
        tensors = tuple(all_seen(leaf for leaf in self._leaves if isinstance(leaf, Tensor)))
        self._leaves = [_HERE if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        return tensors

    def put(self, tensors: Sequence[Any]) -> Tree:
        """Return the tree with other values in the places of its tensors."""
        rest = iter(tensors)
        return tree.unflatten(self._structure, [next(rest) if leaf is _HERE else leaf for leaf in self._leaves])

    def match(self, who: str, other: Tree) -> list[Any]:
        """List what a tree of the same structure, or with None for a part of it, holds in the places of the tensors.

        Raises:
            StructureError: the structures differ.
        """
        column = tree.align(self._structure, self.put(self._places()), other, who)
        return [value for value, leaf in zip(column, self._leaves, strict=True) if leaf is _HERE]

    def paths(self) -> list[str]:
        """Name each tensor."""
        names = tree.paths(self.put(self._places()))
        return [name for name, leaf in zip(names, self._leaves, strict=True) if leaf is _HERE]

    def _places(self) -> list[int]:
        return list(range(sum(leaf is _HERE for leaf in self._leaves)))


class Call:
    """The arguments of one call: those at `static` positions as they are, of the others the tensors."""

    def __init__(self, fn: Callable[..., Any], static: Sequence[int], args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.static = {number % len(args): args[number % len(args)] for number in static} if args else {}
        self.inputs, self.outputs = Packed(), Packed()
        self.tensors = self.inputs.take(tuple(arg for i, arg in enumerate(args) if i not in self.static))
        self._count = len(args)

    def arguments(self, tensors: Sequence[Tensor]) -> list[Any]:
        """Return all arguments, in their order."""
        rest = iter(self.inputs.put(tensors))
        return [self.static[i] if i in self.static else next(rest) for i in range(self._count)]

    def value(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value."""
        with replacing():
            return self.outputs.take(self.fn(*self.arguments(tensors)))

    def again(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the value once more, for a backward pass."""
        return self.value(*tensors)


def check_callable(who: str, fn: Any) -> None:
    """Check that what gets a rule is a function.

    Raises:
        TransformError: it is not.
    """
    if not callable(fn):
        raise TransformError(f"{who}: wanted a function, got {tree.describe(fn)}")


def fresh(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return outputs none of which is an input or another output: an operation must not return what it was given."""
    seen = set(map(id, inputs))
    result = []
    for leaf in outputs:
        result.append(leaf.clone() if id(leaf) in seen else leaf)
        seen.add(id(leaf))
    return tuple(result)


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
    """Let other transforms see what the forward rule of an operation computes: torch runs it without derivatives."""

    @wraps(rule)
    def run(*args: Any) -> Any:
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            return rule(*args)

    return run


def primals(ctx: Any) -> list[Tensor]:
    """Return the saved tensors in a forward rule, without the tangents that the rule has been given by themselves."""
    return [_primal(leaf) if is_variable(leaf) else leaf for leaf in ctx.saved_tensors]


def _primal(leaf: Tensor) -> Tensor:
    if not functorch.is_batchedtensor(leaf):
        return forward_ad.unpack_dual(leaf).primal
    opened, dim = functorch.maybe_get_level(leaf), functorch.maybe_get_bdim(leaf)
    return functorch._add_batch_dim(_primal(functorch.get_unwrapped(leaf)), dim, opened)


def alive(leaf: Any) -> Any:
    """Return what a tensor of a closed level holds: torch's operations take it out themselves, its transforms do not.

    A backward pass may run after the level in which its tensors were saved.
    """
    while isinstance(leaf, Tensor) and functorch.is_gradtrackingtensor(leaf) and functorch.maybe_get_level(leaf) < 0:
        leaf = functorch.get_unwrapped(leaf)
    return leaf
