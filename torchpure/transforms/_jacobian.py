"""Products with the Jacobian, and Jacobians whole."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError

from ._arguments import EVERY, Argnums, Variables, is_variable
from ._describe import describe_function
from ._forward import forwards
from ._levels import mapped_as, pushed, torch_jvp, whole, with_memory
from ._operation import check_callable
from ._run import explained
from ._seen import all_seen
from ._spread import check_chunk
from ._watch import watched


class _Outputs:
    """The outputs of one call: tensors with a derivative go through torch.func, all else waits here."""

    __slots__ = ("_fn", "_has_aux", "_leaves", "_structure", "_who", "aux")

    def __init__(self, who: str, fn: Callable[..., Any], has_aux: bool) -> None:
        self._who, self._fn, self._has_aux = who, fn, has_aux
        self._structure: Any = None
        self.aux: tuple[list[Any], Any] = ([], None)

    def split(self, output: Any) -> tuple[tuple[Tensor, ...], tuple[list[Tensor], list[Tensor]]]:
        """Return the differentiable leaves, and the other tensors of the value and of aux."""
        if self._has_aux and (not isinstance(output, tuple) or len(output) != 2):
            raise TransformError(
                f"{self._who}: with has_aux, {describe_function(self._fn)} must return (value, aux), "
                f"got {tree.describe(output)}. Return both, or leave out has_aux"
            )
        value, aux = output if self._has_aux else (output, None)
        leaves, structure = tree.flatten(value)
        if self._structure is None:
            self._structure = structure
        elif structure != self._structure:  # in another chunk
            leaves = tree.ordered(self._structure, value, f"{self._who}: what {describe_function(self._fn)} returns")
        self._leaves = all_seen(leaves)
        others, structure = tree.flatten(aux)
        self.aux = all_seen(others), structure
        variables = tuple(leaf for leaf in self._leaves if is_variable(leaf))
        if not variables:
            raise TransformError(
                f"{self._who}: {describe_function(self._fn)} must return floating point or complex tensors, "
                f"got {tree.describe(value)}"
            )
        return variables, (_tensors(leaf for leaf in self._leaves if not is_variable(leaf)), _tensors(self.aux[0]))

    def value(self, variables: Any, others: list[Tensor]) -> Tree:
        """Put the value together again."""
        filled, rest = iter(variables), iter(others)
        leaves = [
            next(filled) if is_variable(leaf) else next(rest) if isinstance(leaf, Tensor) else leaf
            for leaf in self._leaves
        ]
        return tree.unflatten(self._structure, leaves)

    def auxiliary(self, tensors: list[Tensor]) -> Tree:
        """Put aux together again."""
        rest = iter(tensors)
        leaves, structure = self.aux
        return tree.unflatten(structure, [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves])

    def derivative(self, parts: Any) -> Tree:
        """Arrange one part a differentiable leaf as the value is, with None for every other leaf."""
        filled = iter(parts)
        return tree.unflatten(self._structure, [next(filled) if is_variable(leaf) else None for leaf in self._leaves])

    def match(self, cotangent: Tree) -> list[Any]:
        """List what a tree shaped like the value holds at its differentiable leaves."""
        whole = tree.unflatten(self._structure, self._leaves)
        column = tree.align(self._structure, whole, cotangent, self._who)
        return [part for part, leaf in zip(column, self._leaves, strict=True) if is_variable(leaf)]

    def paths(self) -> list[str]:
        """Name each differentiable leaf."""
        names = tree.paths(tree.unflatten(self._structure, self._leaves))
        return [f"at `{name}`" for name, leaf in zip(names, self._leaves, strict=True) if is_variable(leaf)]


def jvp(fn: Callable[..., Any], primals: tuple[Tree, ...], tangents: tuple[Tree, ...], has_aux: bool = False) -> Any:
    """Push tangents forward: return (fn(*primals), J · tangents), and aux as a third with `has_aux`.

    A tangent that is None stands for zero.

    Raises:
        TransformError: tangents differ from the primals in shape or dtype.
        StructureError: or in structure.

    >>> jvp(lambda x: x**2, (torch.tensor(3.0),), (torch.tensor(1.0),))
    (tensor(9.), tensor(6.))
    """
    check_callable("jvp", fn)
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, tuple | list):
            raise TransformError(
                f"jvp: {name} must be a tuple, one entry an argument, got {tree.describe(given)}: for one write (x,)"
            )
    if len(primals) != len(tangents):
        raise TransformError(
            f"jvp: wanted {len(primals)} tangents, one a primal, got {len(tangents)}. None stands for zero"
        )
    variables = Variables("jvp", fn, EVERY, tuple(primals))
    watch = watched("jvp", fn, tuple(primals))
    directions = like(
        "jvp: tangent of", variables.paths, variables.match("jvp: tangents", tuple(tangents)), variables.leaves
    )
    outputs = _Outputs("jvp", fn, has_aux)

    def flat(*values: Tensor) -> Any:
        arguments = variables.arguments(values)
        with watch.replacing(always=True):
            result = fn(*arguments)
        return outputs.split(result)

    leaves = tuple(variables.leaves)
    value, moved, (others, aux) = explained("jvp", fn, forwards(_pushed), flat, leaves, tuple(directions))
    watch.check()
    result = (outputs.value(value, others), outputs.derivative(moved))
    return (*result, outputs.auxiliary(aux)) if has_aux else result


def _pushed(fn: Callable[..., Any], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Any:
    if is_dynamo_compiling():
        return torch.func.jvp(fn, primals, tangents, has_aux=True)
    sizes: list[int] = []

    def flat(*values: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        parts, (others, aux) = fn(*values)
        sizes.append(len(others))
        return parts, [*others, *aux]

    value, moved, rest = pushed(flat, primals, tangents)
    return value, moved, (rest[: sizes[0]], rest[sizes[0] :])


def vjp(fn: Callable[..., Any], *primals: Tree, has_aux: bool = False) -> Any:
    """Return (fn(*primals), pull): `pull(cotangent)` is a tuple with cotangent · J for each primal.

    The cotangent is shaped like the value; None in it stands for zero. With `has_aux` the result is
    (value, pull, aux).

    Raises:
        TransformError: the cotangent differs from the value in shape or dtype.
        StructureError: or in structure.

    >>> value, pull = vjp(lambda x: x**2, torch.tensor(3.0))
    >>> pull(torch.tensor(1.0))
    (tensor(6.),)
    """
    check_callable("vjp", fn)
    return pulled_back("vjp", fn, primals, has_aux)


def pulled_back(who: str, fn: Callable[..., Any], primals: tuple[Tree, ...], has_aux: bool = False) -> Any:
    """Do what `vjp` does, under another name in errors."""
    variables = Variables(who, fn, tuple(range(len(primals))), primals)
    watch = watched(who, fn, primals)
    outputs = _Outputs(who, fn, has_aux)

    def flat(*values: Tensor) -> Any:
        return outputs.split(fn(*variables.arguments(values)))

    run = partial(torch.func.vjp, flat, has_aux=True)
    with watch.replacing():
        value, flat_pull, (others, aux) = explained(who, fn, run, *variables.leaves)
    watch.check()

    def pull(cotangent: Tree) -> tuple[Tree, ...]:
        parts = like(f"{who}: cotangent", outputs.paths, outputs.match(cotangent), list(value))
        return variables.result(explained(who, fn, flat_pull, tuple(parts)))

    result = (outputs.value(value, others), pull)
    return (*result, outputs.auxiliary(aux)) if has_aux else result


def jacrev(
    fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, chunk_size: int | None = None
) -> Callable[..., Any]:
    """Return the function that computes the Jacobian of `fn`, from one backward pass for each output entry.

    The result is shaped like the value, with the chosen arguments' shape in the place of each leaf, and at each leaf
    a tensor of shape (*output, *input). With `has_aux` it is (Jacobian, aux). All entries are computed at once, or at
    most `chunk_size`, which bounds the memory for values in between.

    Law: `jacrev(f) == jacfwd(f)`, whatever the chunks.

    Raises:
        TransformError: there is nothing to differentiate, `fn` does not return tensors, or one is complex.

    >>> jacrev(lambda x: x**2)(torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    check_callable("jacrev", fn)
    check_chunk("jacrev", chunk_size)
    return _jacobian("jacrev", partial(_jacrev, chunk_size), fn, argnums, has_aux, forward=False)


def jacfwd(
    fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, chunk_size: int | None = None
) -> Callable[..., Any]:
    """Return the function that computes the Jacobian of `fn`, from one forward derivative for each input entry.

    As `jacrev` otherwise.

    Raises:
        TransformError: there is nothing to differentiate, `fn` does not return tensors, or one is complex.

    >>> jacfwd(lambda x: x**2)(torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    check_callable("jacfwd", fn)
    check_chunk("jacfwd", chunk_size)
    return _jacobian("jacfwd", partial(_jacfwd, chunk_size), fn, argnums, has_aux, forward=True)


def hessian(
    fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, chunk_size: int | None = None
) -> Callable[..., Any]:
    """Return the function that computes the Hessian: `jacfwd(jacrev(fn))`, at most `chunk_size` columns at once.

    Raises:
        TransformError: as for `jacrev`.

    >>> hessian(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    check_callable("hessian", fn)
    check_chunk("hessian", chunk_size)
    inner = _jacobian("hessian", torch.func.jacrev, fn, argnums, has_aux, forward=False)
    return _jacobian("hessian", partial(_jacfwd, chunk_size), inner, argnums, has_aux, forward=True)


def _jacrev(
    chunk_size: int | None, fn: Callable[..., Any], argnums: tuple[int, ...], has_aux: bool
) -> Callable[..., Any]:
    run = torch.func.jacrev(fn, argnums=argnums, has_aux=has_aux, chunk_size=chunk_size)
    if chunk_size != 1:
        return run

    def one_by_one(*leaves: Tensor) -> Any:
        try:
            return run(*leaves)
        except AssertionError as error:  # torch looks for the first row of an output that has none
            if "expected t.size(0) to be 1, got 0" not in str(error):
                raise
            return torch.func.jacrev(fn, argnums=argnums, has_aux=has_aux)(*leaves)

    return one_by_one


def _jacfwd(
    chunk_size: int | None, fn: Callable[..., Any], argnums: tuple[int, ...], has_aux: bool
) -> Callable[..., Any]:
    every = torch.func.jacfwd(fn, argnums=argnums, has_aux=has_aux)

    def run(*leaves: Tensor) -> Any:
        if not any(map(Tensor.numel, leaves)):
            return _empty_jacfwd(fn, *leaves)
        if chunk_size is None and is_dynamo_compiling():
            return every(*leaves)
        return _chunked_jacfwd(chunk_size or sum(map(Tensor.numel, leaves)), fn, *leaves)

    return forwards(run)


def _chunked_jacfwd(chunk_size: int, fn: Callable[..., Any], *leaves: Tensor) -> Any:
    """Push the unit vectors of all inputs forward, some at a time: (rows, aux), as torch.func.jacfwd gives them."""
    sizes = [leaf.numel() for leaf in leaves]
    aux: list[Any] = []

    def push(*tangents: Tensor) -> tuple[Tensor, ...]:
        _, moved, others = torch_jvp(fn, leaves, tuple(mapped_as(leaves, tangents)), has_aux=True)
        aux[:] = [others]
        return moved

    parts = [
        torch.func.vmap(push)(*_unit_vectors(leaves, sizes, start, min(start + chunk_size, sum(sizes))))
        for start in range(0, sum(sizes), chunk_size)
    ]
    stacked = [torch.cat([whole(part) for part in column]).movedim(0, -1) for column in zip(*parts, strict=True)]
    columns = [column.split(sizes, -1) for column in stacked]
    rows = tuple(
        tuple(part.reshape((*part.shape[:-1], *leaf.shape)) for part, leaf in zip(column, leaves, strict=True))
        for column in columns
    )
    return rows, aux[0]


def _empty_jacfwd(fn: Callable[..., Any], *leaves: Tensor) -> Any:
    """Give the Jacobian by inputs without entries, which have no unit vectors: torch cannot map over none of them."""
    _, moved, aux = torch_jvp(fn, leaves, tuple(map(torch.zeros_like, leaves)), has_aux=True)
    return tuple(tuple(out.new_zeros((*out.shape, *leaf.shape)) for leaf in leaves) for out in moved), aux


def _unit_vectors(leaves: Sequence[Tensor], sizes: list[int], start: int, stop: int) -> list[Tensor]:
    vectors, offset = [], 0
    for leaf, size in zip(leaves, sizes, strict=True):
        places = torch.arange(start - offset, stop - offset, device=leaf.device)
        flat = places[:, None] == torch.arange(size, device=leaf.device)
        vectors.append(flat.to(leaf.dtype).reshape((stop - start, *leaf.shape)))
        offset += size
    return vectors


def _jacobian(
    who: str,
    transform: Callable[..., Any],
    fn: Callable[..., Any],
    argnums: Argnums,
    has_aux: bool,
    forward: bool,
) -> Callable[..., Any]:
    @wraps(fn, updated=())
    def jacobian(*args: Tree, **kwargs: Any) -> Any:
        variables = Variables(who, fn, argnums, args)
        _check_real(who, fn, variables.leaves, variables.paths)
        watch = watched(who, fn, args, kwargs)
        outputs = _Outputs(who, fn, has_aux)

        def flat(*values: Tensor) -> Any:
            parts, others = outputs.split(fn(*variables.arguments(values), **kwargs))
            _check_real(who, fn, parts, lambda: [f"the value {path}" for path in outputs.paths()])
            return parts, others[1]

        every = tuple(range(len(variables.leaves)))
        with watch.replacing(always=forward):
            leaves = map(with_memory, variables.leaves) if forward else variables.leaves
            rows, aux = explained(who, fn, transform(flat, argnums=every, has_aux=True), *leaves)
        watch.check()
        result = outputs.derivative(variables.result(row) for row in rows)
        return (result, outputs.auxiliary(aux)) if has_aux else result

    return jacobian


def _check_real(who: str, fn: Callable[..., Any], leaves: Sequence[Tensor], paths: Callable[[], list[str]]) -> None:
    number = next((number for number, leaf in enumerate(leaves) if leaf.is_complex()), None)
    if number is not None:
        raise TransformError(
            f"{who}: {describe_function(fn)}: {paths()[number]} is complex, where a derivative is no single number: "
            "use jvp or vjp, or torch.view_as_real"
        )


def _tensors(leaves: Any) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def like(who: str, paths: Callable[[], list[str]], parts: list[Any], wanted: Sequence[Tensor]) -> list[Tensor]:
    """Check that each part has the shape and dtype of its tensor; None becomes zeros."""
    filled = [torch.zeros_like(like) if part is None else part for part, like in zip(parts, wanted, strict=True)]
    for number, (part, like) in enumerate(zip(filled, wanted, strict=True)):
        if not isinstance(part, Tensor) or part.shape != like.shape or part.dtype != like.dtype:
            where = paths()[number]
            raise TransformError(f"{who} {where}: wanted {tree.describe(like)}, got {tree.describe(part)}")
    return all_seen(filled)
