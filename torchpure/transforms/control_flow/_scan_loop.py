"""The loop of a `scan` on flat tensors, and what its rules ask of tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import FlatFn, scan_p
from torchpure.transforms.engine import functorch, innermost, is_variable, level_kinds


@dataclass(frozen=True, slots=True)
class ScanLoop:
    """A scan on flat tensors: `body(*carry, *slices, *consts)` returns (*carry, *ys)."""

    body: FlatFn
    num_carry: int
    num_xs: int
    length: int
    reverse: bool
    saves_carries: bool = False  # the carry before each step is an extra output, after the ys
    inverse: FlatFn | None = None  # inverse(*carry after a step, *slices, *consts) returns the carry before it

    def split(self, flat: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Split flat inputs into carry, xs and constants."""
        end = self.num_carry + self.num_xs
        return flat[: self.num_carry], flat[self.num_carry : end], flat[end:]

    def run(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Run the loop."""
        carry, xs, consts = self.split(flat)
        carry, xs = ([leaf.contiguous() for leaf in part] for part in (carry, xs))  # compiled loops need dense memory
        body = self.body_with_carry if self.saves_carries else self.body
        out = scan_p(body, tuple(carry), tuple(xs), tuple(consts), self.length, self.reverse)
        return tuple(leaf.contiguous() for leaf in out)  # torch may write into tangents

    def stack_sample(self, last: Sequence[Tensor], ys: Sequence[Tensor], carry: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return results with the shapes of `run`, from those of one step and the carry before it."""
        rows = (*ys, *(carry if self.saves_carries else ()))
        return (*last, *(row.unsqueeze(0).expand(self.length, *row.shape) for row in rows))

    def body_with_carry(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run one step; return the carry before it too."""
        return (*self.body(*inputs), *inputs[: self.num_carry])


def backward_may_follow(tensors: Sequence[Tensor]) -> bool:
    """Tell whether a backward pass may follow, so that carries must be saved."""
    return functorch.TransformType.Grad in level_kinds() or (
        torch.is_grad_enabled() and any(innermost(leaf).requires_grad for leaf in tensors)
    )


def first_slice(x: Tensor) -> Tensor:
    return x[0] if x.shape[0] else torch.zeros(x.shape[1:], dtype=x.dtype, device=x.device)


def variable_positions(leaves: Sequence[Any], wanted: Callable[[int], bool], start: int = 0) -> list[int]:
    return [start + i for i, leaf in enumerate(leaves) if is_variable(leaf) and wanted(start + i)]
