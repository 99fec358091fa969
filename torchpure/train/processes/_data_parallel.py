"""Data-parallel steps: each process of a mesh takes its rows of every batch, and all make the same update."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from torchpure import random, tree
from torchpure._dtensors import is_dtensor
from torchpure._types import T, Tree
from torchpure.errors import TransformError
from torchpure.transforms import value_and_grad
from torchpure.transforms.batching import axis_index, pmax, pmean, psum

from ._local_parts import local_parts

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

AXIS = "data"


class DataParallel(NamedTuple):
    """A mesh, and the axis that splits the rows of a batch."""

    mesh: "DeviceMesh"
    axis: str
    size: int  # of the axis
    is_first: bool  # this process writes files and runs callbacks
    keyed: bool  # a loss with a state takes a key after it

    def value_and_grad(self, loss: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
        """Return the function that evaluates a loss on the rows of each process, and takes the means."""
        return self._over_rows(value_and_grad(loss, has_aux=has_aux), has_aux)

    def mean_of(self, loss: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
        """Return the mean of a loss over the rows of all processes."""
        return self._over_rows(loss, has_aux)

    def _mean(self, values: T) -> T:
        """Return the means of floating-point tensors over the axis; other leaves are equal on all processes."""
        leaves, structure = tree.flatten(values)
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and not _is_whole(leaf)]
        for place, mean in zip(places, pmean([leaves[place] for place in places], self.axis), strict=True):
            leaves[place] = mean
        return tree.unflatten(structure, leaves)

    def _over_rows(self, fn: Callable[..., Any], has_aux: bool) -> Callable[..., Any]:
        """Map a function of parameters and a batch over processes, and take means; a state and a key are not split."""
        from torchpure.parallel import P, shard_map

        def local(params: Tree, *batch: Any) -> Any:
            if has_aux:
                state, *rows = batch
                if self.keyed and rows[0] is not None:
                    rows[0] = random.fold_in(rows[0], axis_index(self.axis))
                batch = state, *rows
            return fn(params, *batch)

        num_whole = 1 + self.keyed if has_aux else 0

        def mapped(params: Tree, *batch: Any) -> Any:
            rows = [tree.map(self._spec, part) for part in batch[num_whole:]]
            specs = (P(), *[P()] * num_whole, *rows)
            parts, whole = local_parts(params, self.mesh)
            of_result: list[Callable[[Tree], Tree]] = []

            def mean_of_parts(parts: Tree, *batch: Any) -> Any:
                result, undo = local_parts(local(whole(parts), *batch), self.mesh)
                of_result.append(undo)
                return self._mean(result)

            result = shard_map(mean_of_parts, self.mesh, specs, P(), check=False)(parts, *batch)
            return of_result[0](result)

        return mapped

    def _spec(self, leaf: Any) -> Any:
        from torchpure.parallel import P

        return P(self.axis) if isinstance(leaf, Tensor) and leaf.ndim else P()

    def check_rows(self, caller: str, rows: int, batch_size: int | None) -> None:
        """Check that the processes divide every batch.

        Raises:
            ValueError: they do not.
        """
        sizes = {"the number of rows": rows} if batch_size is None else {"batch_size": batch_size}
        if batch_size is not None and rows % batch_size:
            sizes["the last batch of an epoch"] = rows % batch_size
        for name, size in sizes.items():
            if size % self.size:
                raise ValueError(
                    f"{caller}: the {self.size} processes of axis {self.axis!r} take equal parts of a batch, but "
                    f"{name} is {size}: choose a multiple of {self.size}"
                )

    def check_equal(self, **values: Tree) -> None:
        """Check that all processes were given the same.

        Raises:
            MeshError: they were not.
        """
        from torchpure.parallel import device_put

        leaves, structure = tree.flatten(values)
        numbers = [torch.tensor(leaf) if isinstance(leaf, int) else leaf for leaf in leaves]
        device_put(tree.unflatten(structure, [None if is_dtensor(leaf) else leaf for leaf in numbers]), self.mesh)

    def any_stops(self, code: int) -> int:
        """Return the largest code of all processes."""
        return int(self._everywhere(lambda names: pmax(torch.tensor(code), names)))

    def from_first(self, make: Callable[[], tuple[T, list[Tensor]]], like: T) -> tuple[T, list[Tensor]]:
        """Return a tree like `like` and a list of one-dimensional tensors, as the first process makes them.

        Raises:
            MeshError: the first process failed.
        """

        def local(names: Any) -> Any:
            values, lists = make() if self.is_first else (like, [])
            count = int(psum(torch.tensor(len(lists)), names))
            sizes = torch.zeros(count, 2, dtype=torch.int64)  # the length of each, and whether it is float64
            for row, part in zip(sizes, lists, strict=False):
                row.copy_(torch.tensor([len(part), part.dtype == torch.float64]))
            sizes = psum(sizes, names).tolist()
            if not self.is_first:
                lists = [torch.zeros(size, dtype=torch.float64 if double else torch.float32) for size, double in sizes]
            return tree.map(lambda leaf: self._sent(leaf, names), (values, lists))

        return self._everywhere(local)

    def _sent(self, leaf: Any, names: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        number = leaf.to(torch.int64) if leaf.dtype == torch.bool else leaf
        # x + (-0.0) is x, bit for bit
        return psum(number if self.is_first else torch.full_like(number, -0.0), names).to(leaf.dtype)

    def _everywhere(self, fn: Callable[[Any], Any]) -> Any:
        from torchpure.parallel import P, shard_map

        names = tuple(self.mesh.mesh_dim_names or ())
        return shard_map(lambda: fn(names), self.mesh, (), P(), check=False)()


def data_parallel(caller: str, mesh: "DeviceMesh | None", *, keyed: bool = False) -> DataParallel | None:
    """Return how the processes of a mesh share the rows of a batch: its axis "data", or its only axis, splits them.

    Raises:
        TransformError: it is no mesh with such an axis.
    """
    if mesh is None:
        return None
    import torch.distributed as dist

    names = getattr(mesh, "mesh_dim_names", None)
    if not names or (AXIS not in names and len(names) > 1):
        got = f"axes {names}" if names else tree.describe(mesh)
        raise TransformError(f"{caller}: mesh: wanted a mesh of tp.make_mesh with an axis {AXIS!r}, got {got}")
    axis = AXIS if AXIS in names else names[0]
    return DataParallel(mesh, axis, mesh.shape[names.index(axis)], dist.get_rank() == 0, keyed)


def _is_whole(leaf: Tensor) -> bool:
    return not leaf.is_floating_point() and not leaf.is_complex()
