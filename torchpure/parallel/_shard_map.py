"""`shard_map`: one function that each process of a mesh runs on its own part of the data."""

from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.batching import Mapping, vmap
from torchpure.transforms.calls import check_callable, hint_keywords
from torchpure.transforms.context import open_axes, open_mesh, open_mesh_axes
from torchpure.transforms.engine import argument_paths, describe_function, expose_all
from torchpure.transforms.purity import watched
from torchpure.transforms.rules import lift_captures

from ._agreement import agree, can_compare
from ._announce import announcing
from ._boundary import check_axes_free, check_spec, globalize, lift, localize
from ._mesh import AxisOfMesh, axes_of, names_of
from ._partition_spec import PartitionSpec
from ._specs import spread, spread_arguments


@hint_keywords(
    check_vma="write check=False, to leave the comparison of processes out",
    check_rep="write check=False, to leave the comparison of processes out",
    axis_names="leave it out: all axes of the mesh are manual",
)
def shard_map(
    fn: Callable[..., Any], mesh: DeviceMesh, in_specs: Any, out_specs: Any, *, check: bool = True
) -> Callable[..., Any]:
    """Return the function that runs `fn` on each process of a mesh, on the parts that `in_specs` describe.

    An argument is one global tensor that every process has, or a DTensor. A spec, `P("data")`, names the axes of the
    mesh that split its dimensions; on the other axes all processes get the same. `out_specs` say how the results of
    all processes make a global result: concatenated along the dimensions of named axes, and taken as equal along the
    others. If an argument is a DTensor, results are DTensors; otherwise every process gets all of each result.
    Specs are prefixes of the trees of arguments and results. Inside, collectives use the axes of the mesh. A captured
    tensor is the same on all processes, as with `P()`.

    With `check`, the processes compare, at each eager call, what they call, the arguments, and equal results.

    Law: `shard_map(f, mesh, P("i"), P("i"))(x)` is `vmap(f, axis_name="i")` of the parts of x, in any stack of
    transforms. A gradient inside is that of the sum over all processes, as inside of `vmap` (JAX: `check_vma=False`);
    outside, gradients of equal arguments are summed over the processes.

    Raises:
        TransformError: a spec does not fit a value or the mesh, or an axis is open already.
        ImpureError: `fn` changes an argument that all processes have, or a captured tensor.
        MeshError: the processes disagree, one has failed or ended, or did not come in time.

    >>> import torch
    >>> from torchpure import P, make_mesh, psum
    >>> mesh = make_mesh((1,), ("data",))
    >>> shard_map(lambda x: x / psum(x.sum(), "data"), mesh, P("data"), P("data"))(torch.tensor([1.0, 3.0]))
    tensor([0.2500, 0.7500])
    """
    check_callable("shard_map", fn)
    names_of(mesh)
    sharding = Sharding(fn, mesh, in_specs, out_specs, check)

    @wraps(fn, updated=())
    def sharded(*args: Tree) -> Tree:
        return sharding.call(args)

    sharded.sharding = sharding  # pyrefly: ignore[missing-attribute] `vmap` reads it, for spmd_axis_name
    return sharded


class Sharding(NamedTuple):
    """A function, and how its arguments and results lie on a mesh."""

    fn: Callable[..., Any]
    mesh: DeviceMesh
    in_specs: Any
    out_specs: Any
    check: bool
    members_axis: str | None = None  # an axis that splits members of a vmap, and that collectives do not see

    def call(self, args: tuple[Tree, ...]) -> Tree:
        """Run the function on global arguments."""

        def run() -> Tree:
            specs = spread_arguments("shard_map", self.in_specs, args)
            return _run(self, args, specs, lambda out: spread("shard_map", self.out_specs, out, "out_specs"))

        return announcing(self.mesh, run)

    def over_members(self, axis: str, mapping: Mapping, collective: bool = False) -> Callable[..., Any]:
        """Return the function of many members, which `axis` of the mesh splits: the result of `vmap`.

        If `collective`, the function may use the axis for collectives: each process has one member.

        Raises:
            TransformError: the mesh has no such axis.
        """
        if axis not in names_of(self.mesh):
            raise TransformError(f"vmap: spmd_axis_name={axis!r} is no axis of the mesh, {names_of(self.mesh)}")
        hidden = None if collective else axis
        members = self._replace(fn=vmap(self.fn, mapping.in_dims, mapping.out_dims), members_axis=hidden)

        def out_specs(out: Any) -> list[PartitionSpec]:
            specs, dims = spread("vmap", self.out_specs, out, "out_specs"), mapping.result_dims(out)
            return [_with_axis(s, axis, leaf, d) for s, leaf, d in zip(specs, tree.leaves(out), dims, strict=True)]

        def run(args: tuple[Tree, ...]) -> Tree:
            leaves, _, dims, _ = mapping.split(args)
            specs = spread_arguments("vmap", self.in_specs, args)
            specs = [_with_axis(s, axis, leaf, d) for s, leaf, d in zip(specs, leaves, dims, strict=True)]
            return _run(members, args, specs, out_specs)

        @wraps(self.fn, updated=())
        def mapped(*args: Tree) -> Tree:
            return announcing(self.mesh, lambda: run(args))

        return mapped


def _with_axis(spec: PartitionSpec, axis: str, leaf: Any, dim: int | None) -> PartitionSpec:
    """Return the spec of many members: their dimension is split by `axis`."""
    if axis in spec.axis_names:
        raise TransformError(
            f"vmap: spmd_axis_name={axis!r} splits the members, and {spec!r} of shard_map splits a tensor of each "
            "member by the same axis: use another axis of the mesh"
        )
    if dim is None:
        return spec
    entries, place = list(spec), dim % leaf.ndim
    entries += [None] * (place - len(entries))
    return PartitionSpec(*entries[:place], axis, *entries[place:])


def _run(
    sharding: Sharding, args: tuple[Tree, ...], specs: list[PartitionSpec], out_specs: Callable[[Any], Any]
) -> Tree:
    fn, mesh = sharding.fn, sharding.mesh
    check_axes_free("shard_map", names_of(mesh), [*open_axes(), *open_mesh_axes()])
    leaves, structure = tree.flatten(args)
    leaves = expose_all(leaves)
    paths = cache(lambda: [path for number, arg in enumerate(args) for path in argument_paths(number, arg)])
    _check_specs(mesh, leaves, specs, paths, is_global=True)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    compares = sharding.check and can_compare(tensors)
    if compares:
        whole = [(leaf, path, PartitionSpec()) for leaf, path in zip(leaves, paths(), strict=True) if _is_plain(leaf)]
        agree(f"shard_map of {describe_function(fn)} with {_shapes(leaves)}", mesh, *_columns(whole))
    axes = axes_of(mesh)
    local = [
        localize(leaf, spec, mesh, axes) if isinstance(leaf, Tensor) else leaf
        for leaf, spec in zip(leaves, specs, strict=True)
    ]
    run, watch = lift_captures(fn, lambda leaf: lift(leaf, axes)), watched("shard_map", fn, args, {})
    with open_mesh([axis for name, axis in axes.items() if name != sharding.members_axis]):
        result = run(*tree.unflatten(structure, local))
    watch.check()
    distributed = any(isinstance(leaf, DTensor) for leaf in tensors)
    return _global_result(sharding, axes, result, out_specs(result), compares, distributed)


def _check_specs(
    mesh: DeviceMesh, leaves: list[Any], specs: list[PartitionSpec], paths: Callable[[], list[str]], is_global: bool
) -> None:
    for number, (leaf, spec) in enumerate(zip(leaves, specs, strict=True)):
        if isinstance(leaf, Tensor):
            check_spec("shard_map", spec, mesh, leaf, lambda n=number: paths()[n], is_global)


def _global_result(
    sharding: Sharding,
    axes: dict[str, AxisOfMesh],
    result: Any,
    specs: list[PartitionSpec],
    compares: bool,
    distributed: bool,
) -> Any:
    leaves, structure = tree.flatten(result)
    leaves = expose_all(leaves)
    paths = cache(
        lambda: ["the result" + (f" at `{path}`" if path not in {"", "."} else "") for path in tree.paths(result)]
    )
    _check_specs(sharding.mesh, leaves, specs, paths, is_global=False)
    if compares:
        rows = [row for row in zip(leaves, paths(), specs, strict=True) if isinstance(row[0], Tensor)]
        replicated = [row for row in rows if set(names_of(sharding.mesh)) - set(row[2].axis_names)]
        agree(
            f"end of shard_map of {describe_function(sharding.fn)}, {_shapes(leaves)}",
            sharding.mesh,
            *_columns(replicated),
        )
    made = [
        globalize(leaf, spec, sharding.mesh, axes, distributed) if isinstance(leaf, Tensor) else leaf
        for leaf, spec in zip(leaves, specs, strict=True)
    ]
    return tree.unflatten(structure, made)


def _columns(rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], list[str], list[PartitionSpec]]:
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _is_plain(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and not isinstance(leaf, DTensor)


def _shapes(leaves: Sequence[Any]) -> str:
    return ", ".join(
        f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}" if isinstance(leaf, Tensor) else f"{leaf!r:.20}"
        for leaf in leaves
    )
