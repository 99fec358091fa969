"""The loop over slices as an operation with rules of its own: its derivatives and batches are such loops again.

The backward pass keeps the carries, and runs each step again from its carry.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import Flat, alive, differentiable, filled, followed, primals, save, scan_p
from torchpure.transforms.context import quiet
from torchpure.transforms.engine import (
    dense,
    functorch,
    innermost,
    is_variable,
    level_kinds,
    torch_jvp,
    torch_vjp,
    unaliased,
    without_zerotensors,
)

from ._batched_body import mapped, settled, spread


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop: `body(*carry, *slices, *consts)` gives (*carry, *ys)."""

    body: Flat
    carries: int
    slices: int
    length: int
    reverse: bool
    keeps: bool = False  # the carries before each step come out after the ys

    def split(self, flat: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Return carry, xs and constants."""
        end = self.carries + self.slices
        return flat[: self.carries], flat[self.carries : end], flat[end:]

    def run(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Run the loop."""
        carry, xs, consts = self.split(flat)
        carry, xs = ([leaf.contiguous() for leaf in part] for part in (carry, xs))  # compiled loops want dense memory
        body = self.keeping if self.keeps else self.body
        out = scan_p(body, tuple(carry), tuple(xs), tuple(consts), self.length, self.reverse)
        return tuple(leaf.contiguous() for leaf in out)  # torch may write to tangents

    def keeping(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Run one step, and give the carry before it, too."""
        return (*self.body(*given), *given[: self.carries])


def scan_flat(
    body: Flat, carry: Sequence[Tensor], xs: Sequence[Tensor], consts: Sequence[Tensor], length: int, reverse: bool
) -> tuple[Tensor, ...]:
    """Return (*carry, *ys), under every transform."""
    flat = (*carry, *xs, *consts)
    loop = Loop(body, len(carry), len(xs), length, reverse)
    if not followed(flat):
        return loop.run(*flat)
    if not goes_back(flat):
        return tuple(_Scan.apply(loop, *flat))
    out = _Scan.apply(replace(loop, keeps=True), *flat)
    return tuple(out[: len(out) - len(carry)])


def goes_back(tensors: Sequence[Tensor]) -> bool:
    """Tell whether a backward pass may follow here."""
    return functorch.TransformType.Grad in level_kinds() or (
        torch.is_grad_enabled() and any(innermost(leaf).requires_grad for leaf in tensors)
    )


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(loop: Loop, *flat: Tensor) -> tuple[Tensor, ...]:
        return unaliased(loop.run(*flat), flat)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        loop, *flat = inputs
        kept = output[len(output) - loop.carries :] if loop.keeps else ()
        save(ctx, loop, (*flat, *kept), output)
        ctx.count, ctx.kinds = len(flat), list(map(is_variable, output))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        saved = [alive(leaf) for leaf in ctx.saved_tensors]
        flat, kept = saved[: ctx.count], saved[ctx.count :]
        pull = _Pull(ctx.call, flat, ctx.needs_input_grad[1:], [alive(part) for part in cotangents])
        return (None, *pull.run(kept))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        return _pushed(ctx.call, primals(ctx)[: ctx.count], tangents, ctx.kinds)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (loop, *flat), size = args, info.batch_size
        carry, xs, consts = loop.split(flat)
        dims, x_dims, const_dims = loop.split(in_dims[1:])
        xs = [x if dim is None else x.movedim(dim, 1) for x, dim in zip(xs, x_dims, strict=True)]
        consts = [x if dim is None else x.movedim(dim, 0) for x, dim in zip(consts, const_dims, strict=True)]
        carry = [x if dim is None else x.movedim(dim, 0) for x, dim in zip(carry, dims, strict=True)]
        rest = [dim is not None for dim in (*x_dims, *const_dims)]
        first = [dim is not None for dim in dims]
        samples = [*carry, *(_slice(x) for x in xs), *consts]
        marks, out = settled(loop.body, size, first, rest, samples)
        carry = [
            spread(x, None, size) if now and not before else x
            for x, now, before in zip(carry, marks, first, strict=True)
        ]
        out = [*marks, *out[loop.carries :]]
        inner = replace(loop, body=mapped(loop.body, size, [*marks, *rest], out))
        stacked = [*out[loop.carries :], *(marks if loop.keeps else ())]
        result = _Scan.apply(inner, *carry, *xs, *consts)
        return result, (*(0 if mark else None for mark in marks), *(1 if mark else None for mark in stacked))


def _slice(x: Tensor) -> Tensor:
    return x[0] if x.shape[0] else torch.zeros(x.shape[1:], dtype=x.dtype, device=x.device)


def _chosen(leaves: Sequence[Any], wanted: Callable[[int], bool], start: int = 0) -> list[int]:
    return [start + i for i, leaf in enumerate(leaves) if is_variable(leaf) and wanted(start + i)]


def _pushed(loop: Loop, flat: Sequence[Tensor], tangents: Sequence[Any], outs: list[bool]) -> tuple[Any, ...]:
    """Push tangents through a loop: a loop over values and tangents."""
    count, slices = loop.carries, loop.slices
    carry, xs, consts = loop.split(flat)
    moving = _chosen(carry, lambda i: True)
    moving_xs = _chosen(xs, lambda i: tangents[i] is not None, count)
    moving_consts = _chosen(consts, lambda i: tangents[i] is not None, count + slices)
    asked = [*moving, *moving_xs, *moving_consts]
    if not asked:
        return (None,) * len(outs)
    given = {i: torch.zeros_like(flat[i]) if tangents[i] is None else tangents[i] for i in asked}

    def dual(*given: Tensor) -> tuple[Tensor, ...]:
        rest = iter(given)
        parts = [[next(rest) for _ in range(n)] for n in sizes]
        values, moved = [*parts[0], *parts[2], *parts[4]], [*parts[1], *parts[3], *parts[5]]
        with quiet():
            out, pushed = _jvp(loop.body, values, asked, moved)
        kept = parts[1] if loop.keeps else ()
        return (*out[:count], *pushed[: len(moving)], *pushed[len(moving) :], *kept)

    sizes = [count, len(moving), slices, len(moving_xs), len(consts), len(moving_consts)]
    out = scan_flat(
        dual,
        (*carry, *(given[i] for i in moving)),
        (*xs, *(given[i] for i in moving_xs)),
        (*consts, *(given[i] for i in moving_consts)),
        loop.length,
        loop.reverse,
    )
    rest = iter(out[count:])
    return tuple(next(rest) if kind else None for kind in outs)


def _jvp(
    body: Flat, values: Sequence[Tensor], asked: Sequence[int], moved: Sequence[Tensor]
) -> tuple[Sequence[Tensor], list[Tensor]]:
    """Return what a body gives, and the tangents of those that are variables."""
    marks: list[bool] = []

    def chosen(*given: Tensor) -> Any:
        out = body(*filled(values, asked, given))
        marks[:] = map(is_variable, out)
        return tuple(x for x in out if is_variable(x)), [x for x in out if not is_variable(x)]

    out, pushed, others = torch_jvp(chosen, tuple(dense(values[i]) for i in asked), tuple(moved), has_aux=True)
    first, second = iter(out), iter(others)
    return [next(first) if mark else next(second) for mark in marks], list(map(without_zerotensors, pushed))


class _Pull:
    """The backward pass of a loop: a loop the other way."""

    def __init__(self, loop: Loop, flat: Sequence[Tensor], needed: Sequence[bool], cotangents: Sequence[Any]) -> None:
        self.loop, self.flat = loop, flat
        self.carry, self.xs, self.consts = loop.split(flat)
        count = loop.carries
        end = len(cotangents) - count if loop.keeps else len(cotangents)
        self.moving = _chosen(self.carry, lambda i: True)
        self.asked_xs = _chosen(self.xs, lambda i: needed[i], count)
        self.asked_consts = _chosen(self.consts, lambda i: needed[i], count + loop.slices)
        self.last = [cotangents[i] for i in self.moving]
        self.used = [i for i in range(count, end) if cotangents[i] is not None]  # among the ys
        self.given = [cotangents[i] for i in self.used]
        late = cotangents[end:]
        self.kept = [i for i in self.moving if late and late[i] is not None]  # carries that a rule has used
        self.given_kept = [late[i] for i in self.kept]

    def run(self, carries: Sequence[Tensor]) -> list[Any]:
        """Return a cotangent for each of the loop's tensors, None where there is none."""
        parts: list[Any] = [None] * len(self.flat)
        if not any(x is not None for x in (*self.last, *self.given, *self.given_kept)):
            return parts
        carries = carries if self.loop.keeps else self._carries()
        last = [
            torch.zeros_like(self.carry[i]) if x is None else x for i, x in zip(self.moving, self.last, strict=True)
        ]
        sums = [torch.zeros_like(self.flat[i]) for i in self.asked_consts]
        rows = (*self.xs, *carries, *self.given, *self.given_kept)
        out = scan_flat(self.step, (*last, *sums), rows, self.consts, self.loop.length, not self.loop.reverse)
        return filled(parts, [*self.moving, *self.asked_consts, *self.asked_xs], out)

    def step(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Pull the cotangent of a carry through one step, run again."""
        rest = iter(given)
        sizes = (self.moving, self.asked_consts, self.xs, self.carry, self.used, self.kept, self.consts)
        last, sums, xs, carry, ys, kept, consts = ([next(rest) for _ in part] for part in sizes)
        values = [*carry, *xs, *consts]
        asked = [*self.moving, *self.asked_xs, *self.asked_consts]

        def chosen(*inputs: Tensor) -> tuple[Tensor, ...]:
            out = self.loop.body(*filled(values, asked, inputs))
            return tuple(out[i] for i in (*self.moving, *self.used))

        with quiet():
            _, pull = torch_vjp(chosen, *(values[i] for i in asked))
            parts = pull((*last, *ys))
        ends = len(self.moving), len(self.moving) + len(self.asked_xs)
        early = list(parts[: ends[0]])
        for i, late in zip(self.kept, kept, strict=True):
            place = self.moving.index(i)
            early[place] = early[place] + late
        sums = [one + two for one, two in zip(sums, parts[ends[1] :], strict=True)]
        return (*early, *sums, *parts[ends[0] : ends[1]])

    def _carries(self) -> tuple[Tensor, ...]:
        """Run the loop again for its carries."""
        loop = self.loop

        def step(*given: Tensor) -> tuple[Tensor, ...]:
            with quiet():
                return (*loop.body(*given)[: loop.carries], *given[: loop.carries])

        return scan_flat(step, self.carry, self.xs, self.consts, loop.length, loop.reverse)[loop.carries :]
