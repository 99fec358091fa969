"""Collectives over a named axis of a mesh of processes, with their derivatives.

Each is linear, so its forward derivative is itself. Transposes: sum is its own, as is the exchange of rows; gather and
scatter_sum are each other's; a permutation has its inverse. This is `jax.shard_map(..., check_vma=False)`: a gradient
inside is that of the sum of all processes' results, as it is inside of a vmap.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure._torch import functorch
from torchpure.transforms.calls import differentiable
from torchpure.transforms.context import MeshAxis, current
from torchpure.transforms.engine import is_differentiated


class ProcessAxis:
    """A named axis of a mesh, for this process."""

    __slots__ = ("_axis", "size")

    def __init__(self, axis: MeshAxis) -> None:
        self._axis, self.size = axis, axis.size

    def index(self) -> Tensor:
        """Return the place of this process along the axis."""
        return torch.tensor(self._axis.rank)

    def sum_all(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        """Sum each tensor over the processes: one collective for all tensors of one dtype."""
        sums: list[Any] = [leaf if leaf.is_floating_point() or leaf.is_complex() else leaf.long() for leaf in leaves]
        for kind in dict.fromkeys((leaf.dtype, leaf.device) for leaf in sums):
            chosen = [i for i, leaf in enumerate(sums) if (leaf.dtype, leaf.device) == kind]
            flat = [sums[i].reshape(-1) for i in chosen]
            total = self._run("sum", sums[chosen[0]] if len(chosen) == 1 else torch.cat(flat))
            parts = [total] if len(chosen) == 1 else total.split([part.numel() for part in flat])
            for i, part in zip(chosen, parts, strict=True):
                sums[i] = part.reshape(sums[i].shape)
        return sums

    def gather(self, leaf: Tensor) -> Tensor:
        """Stack the tensors of all processes at dimension 0."""
        return self._run("gather", leaf)

    def scatter_sum(self, leaf: Tensor) -> Tensor:
        """Sum over the processes, and return the row of this process."""
        return self._run("scatter_sum", leaf)

    def permute(self, leaf: Tensor, sources: Sequence[int]) -> Tensor:
        """Return the tensor of the process that sends to this one, or zeros if none does (source -1)."""
        return self._run("permute", leaf, tuple(sources))

    def exchange(self, leaf: Tensor) -> Tensor:
        """Send row i to process i; return what processes sent to this one, in their order."""
        return self._run("exchange", leaf)

    def _run(self, kind: str, leaf: Tensor, sources: tuple[int, ...] = ()) -> Tensor:
        return run_linear(linear_collective(self._axis, kind, sources), leaf)


class Linear(NamedTuple):
    """A linear function of one tensor, its transpose, and where a batch dimension goes in and comes out."""

    run: Callable[[Tensor], Tensor]
    make_transpose: Callable[[], "Linear"]
    batch_dims: tuple[int, int] | None  # None: last in both


_TRANSPOSES = {"gather": "scatter_sum", "scatter_sum": "gather"}


def linear_collective(axis: MeshAxis, kind: str, sources: tuple[int, ...] = ()) -> Linear:
    """Return a collective as a linear function."""

    def run(leaf: Tensor) -> Tensor:
        current.mesh_collectives += 1
        return axis.collective(kind, leaf, sources)

    # a batch dimension stands behind the dimension of processes
    dims = int(kind in {"scatter_sum", "exchange"}), int(kind in {"gather", "exchange"})
    return Linear(run, lambda: linear_collective(axis, _TRANSPOSES.get(kind, kind), _inverse(sources)), dims)


def _inverse(sources: tuple[int, ...]) -> tuple[int, ...]:
    targets = {source: target for target, source in enumerate(sources) if source >= 0}
    return tuple(targets.get(number, -1) for number in range(len(sources)))


def run_linear(op: Linear, leaf: Tensor) -> Tensor:
    """Run a linear function, with its derivatives and its rule for vmap."""
    if functorch.peek_interpreter_stack() is None and not is_differentiated(leaf):
        return op.run(leaf)  # no transform needs a rule: an autograd function costs ten times as much
    return _Linear.apply(leaf, op)


class _Linear(torch.autograd.Function):
    """A linear function of one tensor: its own forward derivative; the backward pass runs its transpose."""

    @staticmethod
    def forward(leaf: Tensor, op: Linear) -> Tensor:
        return op.run(leaf)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Linear], output: Tensor) -> None:
        ctx.op = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return _Linear.apply(grads[0], ctx.op.make_transpose()), None

    @staticmethod
    @differentiable
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _Linear.apply(tangent, ctx.op)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        leaf, op = args
        given, made = op.batch_dims or (leaf.ndim - 1, leaf.ndim - 1)
        return _Linear.apply(leaf.movedim(in_dims[0], given), op), made
