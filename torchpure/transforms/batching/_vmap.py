"""Vectorisation: a function of one member as a function of a batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import functorch
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable
from torchpure.transforms.context import starting
from torchpure.transforms.engine import argument_paths, describe_function, expose_all, run_vmap
from torchpure.transforms.overrides import run_transform
from torchpure.transforms.purity import watched

from ._chunks import Members, check_spread, spread
from ._collectives import Axis

Dims = Any  # an int or None, or a tree of them that is a prefix of what it describes


def vmap(
    fn: Callable[..., Any],
    in_dims: Dims = 0,
    out_dims: Dims = 0,
    *,
    axis_name: str | None = None,
    chunk_size: int | None = None,
    devices: Sequence[torch.device | str] | None = None,
) -> Callable[..., Any]:
    """Return the function that maps `fn` over one dimension of its arguments.

    `in_dims` is one int for all, or a tuple with an entry an argument: an int, None (not mapped), or a tree of them.
    `out_dims` likewise for the result; None means that the result does not depend on the member. A dimension below 0
    is counted from the end of the tensor with all members. Keyword arguments are not mapped. With `axis_name`, members
    meet in `psum` and its like. At most `chunk_size` members run at once; over `devices` they are spread evenly, each
    share in a thread of its own, and come back to where the arguments are.

    Law: `vmap(fn)(xs)[i] == fn(xs[i])`, whatever the chunks and devices.

    Raises:
        TransformError: `in_dims` or `out_dims` does not fit, sizes differ, a mapped leaf is not a tensor, `fn` draws
            from the global generator, or members that are to meet are in several chunks.

    >>> vmap(lambda p, x: p["a"] * x, in_dims=({"a": None}, 0))({"a": torch.tensor(2.0)}, torch.tensor([1.0, 2.0]))
    tensor([2., 4.])
    """
    check_callable("vmap", fn)
    check_spread(chunk_size, devices, axis_name)

    @wraps(fn, updated=())
    def mapped(*args: Tree, **kwargs: Any) -> Tree:
        flat = [tree.flatten(arg) for arg in args]
        dims = _input_dims(fn, in_dims, args)
        leaves = expose_all(leaf for part, _ in flat for leaf in part)
        size = _mapped_size(fn, leaves, dims, args)
        axis = None if axis_name is None else Axis(axis_name, size)
        call = _Call(fn, flat, dims, out_dims, kwargs, axis)
        watch = watched("vmap", fn, args, kwargs)
        with watch.overriding():
            members = spread(call.share, leaves, dims, size, chunk_size, devices)
        watch.check()
        return _arranged(members)

    if axis_name is None and devices is None and chunk_size is None:
        mapped.mapping = Mapping(fn, in_dims, out_dims)  # pyrefly: ignore[missing-attribute] a compiler asks for it
    return mapped


class Mapping(NamedTuple):
    """What a function made by `vmap` maps, where its members may run in any number of chunks."""

    fn: Callable[..., Any]
    in_dims: Dims
    out_dims: Dims

    def split(self, args: tuple[Tree, ...]) -> tuple[list[Any], Any, list[int | None], int]:
        """Return the leaves of the arguments, their structure, where each has its members, and how many there are.

        Raises:
            TransformError: `in_dims` does not fit, or sizes differ.
        """
        leaves, structure = tree.flatten(args)
        dims = _input_dims(self.fn, self.in_dims, args)
        return leaves, structure, dims, _mapped_size(self.fn, leaves, dims, args)

    def places(self, value: Tree) -> list[int | None]:
        """Return where each leaf of a result has its members."""
        return _spread(self.out_dims, value, "out_dims")


class _Call(NamedTuple):
    """A call of a mapped function; `share` runs some of its members."""

    fn: Callable[..., Any]
    flat: list[tuple[list[Any], Any]]  # leaves and structure of each argument
    dims: list[int | None]
    out_dims: Dims
    kwargs: dict[str, Any]
    axis: Axis | None

    def share(self, given: list[Any], count: int, start: int | None = None) -> Members:
        """Run `count` members, of leaves that hold these alone in their mapped dimensions: all, or from `start` on."""
        result: dict[str, Any] = {}

        def member(*batched: Tensor) -> list[Tensor]:
            remaining = iter(batched)
            filled = iter(leaf if dim is None else next(remaining) for leaf, dim in zip(given, self.dims, strict=True))
            inner = [tree.unflatten(structure, [next(filled) for _ in part]) for part, structure in self.flat]
            with self._opened(remaining, start):
                outputs, result["structure"] = tree.flatten(self.fn(*inner, **self.kwargs))
            return _member_outputs(self.fn, expose_all(outputs), self.out_dims, result)

        # torch counts from the front alone: a dimension below 0 crashes it, or is taken for another
        used = [
            (leaf, dim if dim >= 0 else dim + leaf.ndim)
            for leaf, dim in zip(given, self.dims, strict=True)
            if dim is not None
        ]
        if self.axis is not None:
            used.append((torch.arange(count, device=used[0][0].device), 0))
        run = _traced if is_dynamo_compiling() else run_vmap
        stacked = run_transform("vmap", self.fn, run, member, *zip(*used, strict=True), count)
        return Members(list(stacked), result["shared"], result["dims"], result["structure"])

    def _opened(self, remaining: Iterator[Tensor], start: int | None) -> AbstractContextManager[None]:
        """Let members meet, or be counted: they cannot both meet and be in chunks."""
        if self.axis is not None:
            return self.axis.open(next(remaining))
        return nullcontext() if start is None else starting(start)


def _traced(fn: Callable[..., Any], leaves: tuple[Tensor, ...], dims: tuple[int, ...], size: int) -> Any:
    return torch.func.vmap(fn, in_dims=dims)(*leaves)


def _input_dims(fn: Callable[..., Any], in_dims: Dims, args: tuple[Tree, ...]) -> list[int | None]:
    if in_dims is None or isinstance(in_dims, int):
        entries: Sequence[Dims] = [in_dims] * len(args)
    elif isinstance(in_dims, tuple | list) and len(in_dims) == len(args):
        entries = in_dims
    else:
        raise TransformError(
            f"vmap: in_dims={in_dims!r} does not fit the {len(args)} positional arguments of {describe_function(fn)}: "
            "wanted an int, None or a tuple with an entry for each"
        )
    return [
        dim
        for number, (entry, arg) in enumerate(zip(entries, args, strict=True))
        for dim in _spread(entry, arg, f"in_dims[{number}]")
    ]


def _spread(dims: Dims, part: Tree, where: str) -> list[int | None]:
    """Give each leaf of `part` its dimension from a prefix tree."""
    if dims is None or (isinstance(dims, int) and not isinstance(dims, bool)):
        return [dims] * len(tree.leaves(part))
    wanted, got = tree.children(part), tree.children(dims)
    if wanted is None or got is None or wanted.keys() != got.keys():
        raise TransformError(
            f"vmap: {where} must be an int, None or shaped like the value it is for, {_shown(part)}; got {_shown(dims)}"
        )
    return [dim for name in wanted for dim in _spread(got[name], wanted[name], f"{where}.{name}")]


def _shown(value: Tree) -> str:
    """Describe a tree, a dictionary by its keys: what differs must be seen."""
    return f"a dict with {', '.join(map(repr, value))}" if isinstance(value, dict) and value else tree.describe(value)


def _mapped_size(fn: Callable[..., Any], leaves: list[Any], dims: list[int | None], args: tuple[Tree, ...]) -> int:
    sizes: dict[int, int] = {}  # size -> the first leaf that has it
    for i, (leaf, dim) in enumerate(zip(leaves, dims, strict=True)):
        if dim is None:
            continue
        if not isinstance(leaf, Tensor) or not -leaf.ndim <= dim < leaf.ndim:
            raise TransformError(
                f"vmap: {describe_function(fn)}: {_name(args, i)} cannot be mapped over dimension {dim}: "
                f"it is {tree.describe(leaf)}. Pass in_dims=None for what is not mapped"
            )
        sizes.setdefault(leaf.shape[dim], i)
    if not sizes:
        raise TransformError(
            f"vmap: {describe_function(fn)} has no mapped argument: no leaf has a dimension in in_dims. "
            "Give one of them an int, or call the function as it is"
        )
    if len(sizes) > 1:
        seen = ", ".join(f"{size} in {_name(args, i)}" for size, i in sizes.items())
        raise TransformError(f"vmap: {describe_function(fn)}: mapped dimensions differ in size: {seen}")
    return next(iter(sizes))


def _name(args: tuple[Tree, ...], index: int) -> str:
    return [path for number, arg in enumerate(args) for path in argument_paths(number, arg)][index]


def _member_outputs(fn: Callable[..., Any], outputs: list[Any], out_dims: Dims, result: dict[str, Any]) -> list[Tensor]:
    """Split a member's outputs into those that are stacked, which are returned, and those that are the same for all."""
    whole = tree.unflatten(result["structure"], outputs)
    dims = _spread(out_dims, whole, "out_dims")
    for i, (leaf, dim) in enumerate(zip(outputs, dims, strict=True)):
        if not isinstance(leaf, Tensor):
            raise TransformError(
                f"vmap: {describe_function(fn)} must return tensors, got {tree.describe(leaf)} at "
                f"`{tree.paths(whole)[i]}`: make a tensor of it, or leave it out"
            )
        if dim is None and _depends_on_member(leaf):
            raise TransformError(
                f"vmap: the result of {describe_function(fn)} at `{tree.paths(whole)[i]}` differs between members; "
                "out_dims=None is for a result that does not: give it an int"
            )
        if dim is not None and not -leaf.ndim <= dim + 1 <= leaf.ndim + 1:
            raise TransformError(
                f"vmap: the result of {describe_function(fn)} at `{tree.paths(whole)[i]}` has no place for a "
                f"dimension {dim}: for one member it is {tree.describe(leaf)}"
            )
    result["dims"] = dims
    result["shared"] = [leaf for leaf, dim in zip(outputs, dims, strict=True) if dim is None]
    return [leaf for leaf, dim in zip(outputs, dims, strict=True) if dim is not None]


def _depends_on_member(leaf: Tensor) -> bool:
    return functorch.is_batchedtensor(leaf) and functorch.maybe_get_level(leaf) == functorch.maybe_current_level()


def _arranged(members: Members) -> Tree:
    batched, shared = iter(members.stacked), iter(members.shared)
    leaves = [next(shared) if dim is None else _moved(next(batched), dim) for dim in members.dims]
    return tree.unflatten(members.structure, leaves)


def _moved(leaf: Tensor, dim: int) -> Tensor:
    return leaf if dim == 0 else leaf.movedim(0, dim)
