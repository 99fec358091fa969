"""`vmap`: a function of one member becomes a function of a batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import functorch
from torchpure._types import P, T, Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable, hint_keywords
from torchpure.transforms.context import set_chunk_offset
from torchpure.transforms.engine import argument_paths, describe_function, expose_all, refuse_nested, run_vmap
from torchpure.transforms.overrides import overridden, paused_overrides, run_transform
from torchpure.transforms.purity import refuse_hidden_tensors, watched

from ._axes import Axis
from ._chunks import MemberOutputs, check_vmap_options, run_in_chunks

Dims = Any  # an int or None, or a tree of them that is a prefix of what it describes


@hint_keywords(
    in_axes="write in_dims",
    out_axes="write out_dims",
    randomness="give each member its own key, vmap(fn)(random.split(key, n), ...), or all the same one, in_dims=None; "
    "draw with tp.random",
    axis_size="map an argument of that size too, such as torch.arange(n)",
)
def vmap(
    fn: Callable[P, T],
    in_dims: Dims = 0,
    out_dims: Dims = 0,
    *,
    axis_name: str | None = None,
    chunk_size: int | None = None,
    devices: Sequence[torch.device | str] | None = None,
    spmd_axis_name: str | None = None,
) -> Callable[P, T]:
    """Return the function that maps `fn` over one dimension of its arguments.

    `in_dims` is one int for all arguments, or a tuple or list with an entry for each: an int, None (not mapped), or a
    tree of them. `out_dims` is an int or a tree of them for the result; None means that the result is the same for all
    members, and may be anything, such as a number. A negative dimension counts from the end of the tensor with all
    members. Keyword arguments are not mapped.

    With `axis_name`, members can use collectives such as `psum`. At most `chunk_size` members run at once. With
    `devices`, each device runs an equal part of the members in its own thread; results come back to the device of the
    arguments. A device may be named several times: `jit(vmap(fn, devices=["cpu"] * 4))` runs one compiled program on
    four groups of CPU cores. If `fn` was made by `shard_map`, `spmd_axis_name` is an axis of its mesh that splits the
    members too.

    Law: `vmap(fn)(xs)[i] == fn(xs[i])`, whatever the chunks and devices.

    Raises:
        TransformError: `in_dims` or `out_dims` does not fit, sizes differ, or a mapped leaf is not a tensor.
        TransformError: `fn` draws from the global generator, or `axis_name` comes with `chunk_size` or `devices`.

    >>> vmap(lambda p, x: p["a"] * x, in_dims=({"a": None}, 0))({"a": torch.tensor(2.0)}, torch.tensor([1.0, 2.0]))
    tensor([2., 4.])
    """
    check_callable("vmap", fn)
    check_vmap_options(chunk_size, devices, axis_name)
    sharding: Any = getattr(fn, "sharding", None)
    if spmd_axis_name is not None:
        _check_spmd(sharding, chunk_size, devices, axis_name)
        return sharding.over_members(spmd_axis_name, Mapping(vmap(fn, in_dims, out_dims), fn, in_dims, out_dims))

    @wraps(fn, updated=())
    def mapped(*args: Tree, **kwargs: Any) -> Tree:
        with paused_overrides():
            flat_args = [tree.flatten(arg) for arg in args]
            dims = _input_dims(fn, in_dims, args)
            leaves = expose_all(leaf for value, _ in flat_args for leaf in value)
            size = _mapped_size(fn, leaves, dims, args)
            axis = None if axis_name is None else Axis(axis_name, size)
            call = _VmapCall(fn, flat_args, dims, out_dims, kwargs, axis)
            watch = watched("vmap", fn, args, kwargs)
            members = run_in_chunks(call.run_members, leaves, dims, size, chunk_size, devices)
            watch.check()
            refuse_hidden_tensors("vmap", fn, members.shared)
            return _assemble(members)

    if axis_name is None and sharding is None:
        mapping = Mapping(mapped, fn, in_dims, out_dims, chunk_size, None if devices is None else (*devices,))
        mapped.mapping = mapping  # pyrefly: ignore[missing-attribute] `jit` reads it
    return mapped


def _check_spmd(sharding: Any, *others: Any) -> None:
    if sharding is None:
        raise TransformError(
            "vmap: spmd_axis_name splits the members of a function made by shard_map: map that function itself, "
            "vmap(shard_map(f, mesh, ...), spmd_axis_name=...)"
        )
    if any(option is not None for option in others):
        raise TransformError("vmap: spmd_axis_name comes without chunk_size, devices and axis_name")


class Mapping(NamedTuple):
    """What a function made by `vmap` maps, if its members may run in any chunks."""

    mapped: Callable[..., Any]
    fn: Callable[..., Any]
    in_dims: Dims
    out_dims: Dims
    chunk_size: int | None = None
    devices: tuple[torch.device | str, ...] | None = None

    def at_once(self) -> Callable[..., Any]:
        """Return the function that runs all its members at once, where it is called."""
        whole = self.chunk_size is None and self.devices is None
        return self.mapped if whole else vmap(self.fn, self.in_dims, self.out_dims)

    def split(self, args: tuple[Tree, ...]) -> tuple[list[Any], Any, list[int | None], int]:
        """Return the leaves of the arguments, their structure, their mapped dimensions, and the number of members.

        Raises:
            TransformError: `in_dims` does not fit, or sizes differ.
        """
        leaves, structure = tree.flatten(args)
        dims = _input_dims(self.fn, self.in_dims, args)
        return leaves, structure, dims, _mapped_size(self.fn, leaves, dims, args)

    def result_dims(self, value: Tree) -> list[int | None]:
        """Return the mapped dimension of each leaf of a result."""
        return _output_dims(self.fn, tree.leaves(value), self.out_dims, value)


class _VmapCall(NamedTuple):
    """A call of a mapped function; `run_members` runs some of its members."""

    fn: Callable[..., Any]
    flat_args: list[tuple[list[Any], Any]]  # leaves and structure of each argument
    dims: list[int | None]
    out_dims: Dims
    kwargs: dict[str, Any]
    axis: Axis | None

    def run_members(self, leaves: list[Any], count: int, offset: int | None = None) -> MemberOutputs:
        """Run `count` members, from `offset` on; the mapped leaves hold only these members."""
        result: dict[str, Any] = {}
        run_fn = overridden(self.fn)

        def member(*batched: Tensor) -> list[Tensor]:
            remaining = iter(batched)
            inputs = iter(leaf if dim is None else next(remaining) for leaf, dim in zip(leaves, self.dims, strict=True))
            inner = [tree.unflatten(structure, [next(inputs) for _ in value]) for value, structure in self.flat_args]
            with self._context(remaining, offset):
                outputs, result["structure"] = tree.flatten(run_fn(*inner, **self.kwargs))
            return _member_outputs(self.fn, expose_all(outputs), self.out_dims, result)

        # a negative dimension crashes torch or is misread: count from the front
        used = [
            (leaf, dim if dim >= 0 else dim + leaf.ndim)
            for leaf, dim in zip(leaves, self.dims, strict=True)
            if dim is not None
        ]
        if self.axis is not None:
            used.append((torch.arange(count, device=used[0][0].device), 0))
        run = _vmap_under_dynamo if is_dynamo_compiling() else run_vmap
        stacked = run_transform("vmap", self.fn, run, member, *zip(*used, strict=True), count)
        return MemberOutputs(list(stacked), result["shared"], result["dims"], result["structure"])

    def _context(self, remaining: Iterator[Tensor], offset: int | None) -> AbstractContextManager[None]:
        """Open the named axis, or set the chunk offset; `vmap` does not allow both."""
        if self.axis is not None:
            return self.axis.open(next(remaining))
        return nullcontext() if offset is None else set_chunk_offset(offset)


def _vmap_under_dynamo(fn: Callable[..., Any], leaves: tuple[Tensor, ...], dims: tuple[int, ...], size: int) -> Any:
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
        for dim in _broadcast_prefix(entry, arg, f"in_dims[{number}]")
    ]


def _broadcast_prefix(dims: Dims, value: Tree, place: str) -> list[int | None]:
    """Return the dimension of each leaf of `value`, from a prefix tree of dimensions."""
    if dims is None or (isinstance(dims, int) and not isinstance(dims, bool)):
        return [dims] * len(tree.leaves(value))
    wanted, got = tree.children(value), tree.children(dims)
    if wanted is None or got is None or wanted.keys() != got.keys():
        raise TransformError(
            f"vmap: {place} must be an int, None or shaped like the value it is for, {_describe_keys(value)}; "
            f"got {_describe_keys(dims)}"
        )
    return [dim for name in wanted for dim in _broadcast_prefix(got[name], wanted[name], f"{place}.{name}")]


def _describe_keys(value: Tree) -> str:
    """Describe a tree; a dictionary by its keys, which show the difference."""
    return f"a dict with {', '.join(map(repr, value))}" if isinstance(value, dict) and value else tree.describe(value)


def _mapped_size(fn: Callable[..., Any], leaves: list[Any], dims: list[int | None], args: tuple[Tree, ...]) -> int:
    sizes: dict[int, int] = {}  # size -> the first leaf that has it
    for i, (leaf, dim) in enumerate(zip(leaves, dims, strict=True)):
        if dim is None:
            continue
        if not isinstance(leaf, Tensor) or not -leaf.ndim <= dim < leaf.ndim:
            raise TransformError(
                f"vmap: {describe_function(fn)}: {_leaf_path(args, i)} cannot be mapped over dimension {dim}: "
                f"it is {tree.describe(leaf)}. Pass in_dims=None for what is not mapped"
            )
        try:
            sizes.setdefault(leaf.shape[dim], i)
        except RuntimeError:
            refuse_nested("vmap", fn, leaves)
            raise
    if not sizes:
        raise TransformError(
            f"vmap: {describe_function(fn)} has no mapped argument: no leaf has a dimension in in_dims. "
            "Give one of them an int, or call the function as it is"
        )
    if len(sizes) > 1:
        seen = ", ".join(f"{size} in {_leaf_path(args, i)}" for size, i in sizes.items())
        raise TransformError(
            f"vmap: {describe_function(fn)}: mapped dimensions differ in size: {seen}. "
            "Pass in_dims=None for what is not mapped"
        )
    return next(iter(sizes))


def _leaf_path(args: tuple[Tree, ...], index: int) -> str:
    return [path for number, arg in enumerate(args) for path in argument_paths(number, arg)][index]


def _member_outputs(fn: Callable[..., Any], outputs: list[Any], out_dims: Dims, result: dict[str, Any]) -> list[Tensor]:
    """Return the outputs of a member that are stacked; put the shared ones and all dimensions into `result`."""
    outputs_tree = tree.unflatten(result["structure"], outputs)
    dims = _output_dims(fn, outputs, out_dims, outputs_tree)
    for i, (leaf, dim) in enumerate(zip(outputs, dims, strict=True)):
        if not isinstance(leaf, Tensor):
            continue
        if dim is None and _depends_on_member(leaf):
            raise TransformError(
                f"vmap: the result of {describe_function(fn)} at `{tree.paths(outputs_tree)[i]}` differs between "
                "members; out_dims=None is for a result that does not: give it an int"
            )
        if dim is not None and not -leaf.ndim <= dim + 1 <= leaf.ndim + 1:
            raise TransformError(
                f"vmap: the result of {describe_function(fn)} at `{tree.paths(outputs_tree)[i]}` has no place for a "
                f"dimension {dim}: for one member it is {tree.describe(leaf)}"
            )
    result["dims"] = dims
    result["shared"] = [leaf for leaf, dim in zip(outputs, dims, strict=True) if dim is None]
    return [leaf for leaf, dim in zip(outputs, dims, strict=True) if dim is not None]


def _output_dims(fn: Callable[..., Any], outputs: list[Any], out_dims: Dims, value: Tree) -> list[int | None]:
    """Return the dimension of each leaf of a result; as in torch.func, `(0,)` fits one tensor too."""
    alone = len(outputs) == 1 and outputs[0] is value and isinstance(out_dims, tuple) and len(out_dims) == 1
    dims = _broadcast_prefix(out_dims[0] if alone else out_dims, value, "out_dims")
    for i, (leaf, dim) in enumerate(zip(outputs, dims, strict=True)):
        if dim is not None and not isinstance(leaf, Tensor):
            raise TransformError(
                f"vmap: {describe_function(fn)} must return tensors, got {tree.describe(leaf)} at "
                f"`{tree.paths(value)[i]}`: make a tensor of it, or give it None in out_dims"
            )
    return dims


def _depends_on_member(leaf: Tensor) -> bool:
    return functorch.is_batchedtensor(leaf) and functorch.maybe_get_level(leaf) == functorch.maybe_current_level()


def _assemble(members: MemberOutputs) -> Tree:
    batched, shared = iter(members.stacked), iter(members.shared)
    leaves = [next(shared) if dim is None else _move_members(next(batched), dim) for dim in members.dims]
    return tree.unflatten(members.structure, leaves)


def _move_members(leaf: Tensor, dim: int) -> Tensor:
    return leaf if dim == 0 else leaf.movedim(0, dim)
