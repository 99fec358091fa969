"""The choice of a branch as an operation with rules of its own: its derivatives and batches are such choices again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import Flat, alive, among, differentiable, filled, followed, primals, save, switch_p
from torchpure.transforms.context import next_only_for, quiet
from torchpure.transforms.engine import dense, is_variable, torch_jvp, torch_vjp, unaliased, without_zerotensors

from ._batched_body import Marks, mapped, marks_of


@dataclass(frozen=True, slots=True)
class Choice:
    """Branches of which one runs, all on the same tensors."""

    branches: tuple[Flat, ...]

    def run(self, index: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        """Run the branch of this number."""
        return tuple(leaf.contiguous() for leaf in switch_p(index, self.branches, tuple(flat)))


def switch_flat(index: Tensor, branches: Sequence[Flat], flat: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return what the branch of this number gives, under every transform."""
    choice = Choice(tuple(branches))
    if not followed((index, *flat)):
        return choice.run(index, *flat)
    return tuple(_Switch.apply(choice, index, *flat))


class _Switch(torch.autograd.Function):
    @staticmethod
    def forward(choice: Choice, index: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
        return unaliased(choice.run(index, *flat), flat)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save(ctx, inputs[0], inputs[1:], output)
        ctx.kinds = list(map(is_variable, output))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        index, *flat = [alive(leaf) for leaf in ctx.saved_tensors]
        asked = [i for i, leaf in enumerate(flat) if is_variable(leaf) and ctx.needs_input_grad[i + 2]]
        used = [i for i, part in enumerate(cotangents) if part is not None]
        parts: list[Any] = [None] * len(flat)
        if not asked or not used:
            return (None, None, *parts)
        branches = [_Pull(branch, len(flat), asked, used) for branch in ctx.call.branches]
        out = switch_flat(index, branches, (*flat, *(alive(cotangents[i]) for i in used)))
        return (None, None, *filled(parts, asked, out))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, __: None, *tangents: Any) -> Any:
        index, *flat = primals(ctx)
        asked = [i for i, leaf in enumerate(flat) if is_variable(leaf) and tangents[i] is not None]
        if not asked:
            return (None,) * len(ctx.kinds)
        branches = [_Push(branch, len(flat), asked) for branch in ctx.call.branches]
        return among(ctx.kinds, switch_flat(index, branches, (*flat, *(tangents[i] for i in asked))))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (choice, index, *flat), (_, index_dim, *dims), size = args, in_dims, info.batch_size
        given = [leaf if dim is None else leaf.movedim(dim, 0) for leaf, dim in zip(flat, dims, strict=True)]
        marks = [dim is not None for dim in dims]
        if index_dim is not None:
            out = _selected(choice, index, given, marks, size)
            return out, (0,) * len(out)
        each = [marks_of(branch, size, marks, given) for branch in choice.branches]
        out = [any(column) for column in zip(*each, strict=True)]
        branches = tuple(mapped(branch, size, marks, out) for branch in choice.branches)
        return _Switch.apply(Choice(branches), index, *given), tuple(0 if mark else None for mark in out)


@dataclass(frozen=True, slots=True)
class _Pull:
    """The backward pass of a branch."""

    branch: Flat
    count: int
    asked: list[int]
    used: list[int]

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        flat, cotangents = given[: self.count], given[self.count :]

        def chosen(*inputs: Tensor) -> tuple[Tensor, ...]:
            out = self.branch(*filled(flat, self.asked, inputs))
            return tuple(out[i] for i in self.used)

        with quiet():
            _, pull = torch_vjp(chosen, *(flat[i] for i in self.asked))
            return pull(tuple(cotangents))


@dataclass(frozen=True, slots=True)
class _Push:
    """The forward derivative of a branch."""

    branch: Flat
    count: int
    asked: list[int]

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        flat, tangents = given[: self.count], given[self.count :]

        def chosen(*inputs: Tensor) -> tuple[Tensor, ...]:
            out = self.branch(*filled(flat, self.asked, inputs))
            return tuple(leaf for leaf in out if is_variable(leaf))

        with quiet():
            _, moved = torch_jvp(chosen, tuple(dense(flat[i]) for i in self.asked), tuple(tangents))
        return tuple(map(without_zerotensors, moved))


def _selected(choice: Choice, index: Tensor, given: Sequence[Tensor], marks: Marks, size: int) -> tuple[Tensor, ...]:
    """Run all branches on all members, and select.

    A branch sees members that do not choose it as one that does, for whom it is meant: where it has no finite
    derivative a zero cotangent would give NaN.
    """
    out: list[Tensor] = []
    for number, branch in enumerate(choice.branches):
        chosen = index == number
        safe = [_safe(leaf, chosen, mark) for leaf, mark in zip(given, marks, strict=True)]
        results = branch_of(chosen_by_last(branch, alike=True), size, [*marks, True])(*safe, chosen)
        out = [torch.where(_beside(chosen, new), new, old) for new, old in zip(results, out or results, strict=True)]
    return tuple(out)


def branch_of(branch: Flat, size: int, marks: list[bool]) -> Flat:
    """Return a branch on members, whose results all have them."""

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        count = len(marks_of(branch, size, marks, given))
        return mapped(branch, size, marks, [True] * count)(*given)

    return run


def chosen_by_last(fn: Flat, alike: bool) -> Flat:
    """Return a function of one more tensor, which tells whether it is for this member that it runs."""

    def run(*given: Tensor) -> Sequence[Tensor]:
        with next_only_for(given[-1], alike):
            return fn(*given[:-1])

    return run


def _safe(leaf: Tensor, chosen: Tensor, mark: bool) -> Tensor:
    if not mark:  # stays as it is for all: an index of members over another axis is known by that
        return torch.where(chosen.any(), leaf, torch.ones_like(leaf)) if is_variable(leaf) else leaf
    first = leaf.index_select(0, chosen.to(torch.int64).argmax().reshape(1))
    other = torch.where(chosen.any(), first, torch.ones_like(first) if is_variable(leaf) else first)
    return torch.where(_beside(chosen, leaf), leaf, other)


def _beside(chosen: Tensor, leaf: Tensor) -> Tensor:
    return chosen.reshape(-1, *[1] * (leaf.ndim - 1))
