"""`switch` as an operation: its derivative and its batching rules are `switch` operations again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import (
    FlatFn,
    differentiable,
    insert_nones,
    needs_rules,
    replace_at,
    save_for_rules,
    saved_primals,
    switch_p,
    unwrap_closed_levels,
)
from torchpure.transforms.context import next_active_where, suppress_callbacks
from torchpure.transforms.engine import dense, is_variable, torch_jvp, torch_vjp, unaliased, without_zerotensors

from ._batched_body import BatchedFlags, batch_all_outputs, batch_body, expand_where, is_sample_enough, sample


@dataclass(frozen=True, slots=True)
class Choice:
    """Branches on the same tensors; one of them runs."""

    branches: tuple[FlatFn, ...]

    def run(self, index: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        """Run the branch at this index."""
        return tuple(leaf.contiguous() for leaf in switch_p(index, self.branches, tuple(flat)))


def switch_flat(index: Tensor, branches: Sequence[FlatFn], flat: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the results of the branch at this index, under every transform."""
    choice = Choice(tuple(branches))
    if not needs_rules((index, *flat)):
        return choice.run(index, *flat)
    return tuple(_Switch.apply(choice, index, *flat))


class _Switch(torch.autograd.Function):
    @staticmethod
    def forward(choice: Choice, index: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        return unaliased(choice.run(index, *flat), flat)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save_for_rules(ctx, inputs[0], inputs[1:], output)
        ctx.output_is_variable = list(map(is_variable, output))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        index, *flat = [unwrap_closed_levels(leaf) for leaf in ctx.saved_tensors]
        diff_inputs = [i for i, leaf in enumerate(flat) if is_variable(leaf) and ctx.needs_input_grad[i + 2]]
        used_outputs = [i for i, part in enumerate(cotangents) if part is not None]
        parts: list[Any] = [None] * len(flat)
        if not diff_inputs or not used_outputs:
            return (None, None, *parts)
        branches = [_BranchVjp(branch, len(flat), diff_inputs, used_outputs) for branch in ctx.call.branches]
        out = switch_flat(index, branches, (*flat, *(unwrap_closed_levels(cotangents[i]) for i in used_outputs)))
        return (None, None, *replace_at(parts, diff_inputs, out))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, __: None, *tangents: Any) -> Any:
        index, *flat = saved_primals(ctx)
        diff_inputs = [i for i, leaf in enumerate(flat) if is_variable(leaf) and tangents[i] is not None]
        if not diff_inputs:
            return (None,) * len(ctx.output_is_variable)
        branches = [_BranchJvp(branch, len(flat), diff_inputs) for branch in ctx.call.branches]
        return insert_nones(
            ctx.output_is_variable, switch_flat(index, branches, (*flat, *(tangents[i] for i in diff_inputs)))
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (choice, index, *flat), (_, index_dim, *dims), size = args, in_dims, info.batch_size
        inputs = [leaf if dim is None else leaf.movedim(dim, 0) for leaf, dim in zip(flat, dims, strict=True)]
        in_batched = [dim is not None for dim in dims]
        if index_dim is not None:
            out = _run_all_and_select(choice, index, inputs, in_batched, size)
            return out, (0,) * len(out)
        runs = [sample(branch, size, in_batched, inputs) for branch in choice.branches]
        out = [any(column) for column in zip(*(run.flags for run in runs), strict=True)]
        dims = tuple(0 if flag else None for flag in out)
        if is_sample_enough(runs[0], (index, *flat)):
            return tuple(expand_where(runs[0].results, runs[0].flags, out, size)), dims
        branches = tuple(batch_body(branch, size, in_batched, out) for branch in choice.branches)
        return _Switch.apply(Choice(branches), index, *inputs), dims


@dataclass(frozen=True, slots=True)
class _BranchVjp:
    """The backward derivative of a branch."""

    branch: FlatFn
    num_operands: int
    diff_inputs: list[int]
    used_outputs: list[int]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        flat, cotangents = inputs[: self.num_operands], inputs[self.num_operands :]

        def restricted(*values: Tensor) -> tuple[Tensor, ...]:
            out = self.branch(*replace_at(flat, self.diff_inputs, values))
            return tuple(out[i] for i in self.used_outputs)

        with suppress_callbacks():
            _, pull = torch_vjp(restricted, *(flat[i] for i in self.diff_inputs))
            return pull(tuple(cotangents))


@dataclass(frozen=True, slots=True)
class _BranchJvp:
    """The forward derivative of a branch."""

    branch: FlatFn
    num_operands: int
    diff_inputs: list[int]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        flat, tangents = inputs[: self.num_operands], inputs[self.num_operands :]

        def restricted(*values: Tensor) -> tuple[Tensor, ...]:
            out = self.branch(*replace_at(flat, self.diff_inputs, values))
            return tuple(leaf for leaf in out if is_variable(leaf))

        with suppress_callbacks():
            _, out_tangents = torch_jvp(restricted, tuple(dense(flat[i]) for i in self.diff_inputs), tuple(tangents))
        return tuple(map(without_zerotensors, out_tangents))


def _run_all_and_select(
    choice: Choice, index: Tensor, inputs: Sequence[Tensor], in_batched: BatchedFlags, size: int
) -> tuple[Tensor, ...]:
    """Run all branches on all members, and select the results.

    A member that does not choose a branch runs it with the operands of one that does. With its own operands the
    derivative could be infinite, and a zero cotangent times infinity is NaN.
    """
    out: list[Tensor] = []
    for number, branch in enumerate(choice.branches):
        mask = index == number
        safe = [_substitute_operands(leaf, mask, flag) for leaf, flag in zip(inputs, in_batched, strict=True)]
        results = batch_all_outputs(masked_by_last(branch, substituted=True), size, [*in_batched, True])(*safe, mask)
        out = [torch.where(_expand_mask(mask, new), new, old) for new, old in zip(results, out or results, strict=True)]
    return tuple(out)


def masked_by_last(fn: FlatFn, substituted: bool) -> FlatFn:
    """Return a function with one more input, at the end: the mask of active members."""

    def run(*inputs: Tensor) -> Sequence[Tensor]:
        with next_active_where(inputs[-1], substituted):
            return fn(*inputs[:-1])

    return run


def _substitute_operands(leaf: Tensor, mask: Tensor, flag: bool) -> Tensor:
    if not flag:  # it stays unbatched: the index of another axis is recognised by its batch dimension
        return torch.where(mask.any(), leaf, torch.ones_like(leaf)) if is_variable(leaf) else leaf
    first = leaf.index_select(0, mask.to(torch.int64).argmax().reshape(1))
    other = torch.where(mask.any(), first, torch.ones_like(first) if is_variable(leaf) else first)
    return torch.where(_expand_mask(mask, leaf), leaf, other)


def _expand_mask(mask: Tensor, leaf: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (leaf.ndim - 1))
