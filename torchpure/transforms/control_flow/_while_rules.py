"""The loop of unknown length as an operation with rules of its own; it has no backward pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchpure.errors import TransformError
from torchpure.transforms.calls import Flat, differentiable, filled, followed, primals, save, while_p
from torchpure.transforms.context import quiet
from torchpure.transforms.engine import dense, is_variable, torch_jvp, unaliased, without_zerotensors

from ._batched_body import mapped, marks_of, settled, spread
from ._cond_rules import chosen_by_last


@dataclass(frozen=True, slots=True)
class Until:
    """A loop: `body(*carry, *consts)` gives the next carry, as long as `cond(*carry, *consts)` holds."""

    cond: Callable[..., Any]
    body: Flat
    carries: int
    name: str

    def run(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Run the loop."""
        carry, consts = flat[: self.carries], flat[self.carries :]
        out = while_p(self.cond, self.body, tuple(leaf.contiguous() for leaf in carry), tuple(consts))
        return tuple(leaf.contiguous() for leaf in out)


def while_flat(
    cond: Callable[..., Any], body: Flat, carry: Sequence[Tensor], consts: Sequence[Tensor], name: str
) -> tuple[Tensor, ...]:
    """Return the last carry, under every transform but those that go backwards."""
    flat, loop = (*carry, *consts), Until(cond, body, len(carry), name)
    return tuple(_While.apply(loop, *flat)) if followed(flat) else loop.run(*flat)


class _While(torch.autograd.Function):
    @staticmethod
    def forward(loop: Until, *flat: Tensor) -> tuple[Tensor, ...]:
        return unaliased(loop.run(*flat), flat)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise TransformError(
            f"while_loop: {ctx.call.name} runs an unknown number of times, which a backward pass cannot go back "
            "through: bound it with max_steps, use fori_loop, or go forwards with jvp or jacfwd"
        )

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        loop, flat = ctx.call, primals(ctx)
        count = loop.carries
        moving = [i for i, leaf in enumerate(flat[:count]) if is_variable(leaf)]
        consts = [i for i, leaf in enumerate(flat) if i >= count and is_variable(leaf) and tangents[i] is not None]
        given = [torch.zeros_like(flat[i]) if tangents[i] is None else tangents[i] for i in moving]
        sizes = (count, len(moving), len(flat) - count, len(consts))
        dual = _Dual(loop, sizes, [*moving, *consts])
        carry, rest = (*flat[:count], *given), (*flat[count:], *(tangents[i] for i in consts))
        out = while_flat(dual.cond, dual.body, carry, rest, loop.name)
        return tuple(filled([None] * count, moving, out[count:]))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (loop, *flat), (_, *dims), size = args, in_dims, info.batch_size
        count = loop.carries
        flat = [leaf if dim is None else leaf.movedim(dim, 0) for leaf, dim in zip(flat, dims, strict=True)]
        before = [dim is not None for dim in dims]
        first, rest = before[:count], before[count:]
        marks, _ = settled(loop.body, size, first, rest, flat)
        carry = _widened(flat[:count], first, marks, size)
        differs = marks_of(loop.cond, size, [*marks, *rest], [*carry, *flat[count:]])[0]
        if differs:
            carry = _widened(carry, marks, [True] * count, size)
            marks = [True] * count
        every = _Every(loop, size, [*marks, *rest], marks)
        inner = replace(loop, cond=every.cond if differs else every.shared, body=every.body if differs else every.step)
        return _While.apply(inner, *carry, *flat[count:]), tuple(0 if mark else None for mark in marks)


def _widened(leaves: Sequence[Tensor], before: Sequence[bool], now: Sequence[bool], size: int) -> list[Tensor]:
    return [
        spread(leaf, None, size) if new and not old else leaf
        for leaf, old, new in zip(leaves, before, now, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Dual:
    """A loop over values and tangents; the values decide when it ends."""

    loop: Until
    sizes: tuple[int, int, int, int]  # carry, its tangents, constants, their tangents
    asked: list[int]

    def _parts(self, given: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        rest = iter(given)
        carry, moved, consts, others = ([next(rest) for _ in range(size)] for size in self.sizes)
        return [*carry, *consts], [*moved, *others]

    def cond(self, *given: Tensor) -> Any:
        """Tell whether to go on."""
        with quiet():
            return self.loop.cond(*self._parts(given)[0])

    def body(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Push values and tangents through one step."""
        values, moved = self._parts(given)

        def chosen(*inputs: Tensor) -> Any:
            out = self.loop.body(*filled(values, self.asked, inputs))
            return tuple(leaf for leaf in out if is_variable(leaf)), list(out)

        if not self.asked:
            return tuple(self.loop.body(*values))
        with quiet():
            _, pushed, out = torch_jvp(chosen, tuple(dense(values[i]) for i in self.asked), tuple(moved), has_aux=True)
        return (*out, *map(without_zerotensors, pushed))


@dataclass(frozen=True, slots=True)
class _Every:
    """A loop over all members: it goes on until the last one is done; those that are keep what they have."""

    loop: Until
    size: int
    given: list[bool]
    marks: list[bool]

    def shared(self, *flat: Tensor) -> Any:
        """Tell whether to go on, where that is the same for all members."""
        return mapped(self.loop.cond, self.size, self.given, [False])(*flat)[0]

    def cond(self, *flat: Tensor) -> Tensor:
        """Tell whether any member goes on."""
        return mapped(self.loop.cond, self.size, self.given, [True])(*flat)[0].any()

    def step(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Run one step."""
        return mapped(self.loop.body, self.size, self.given, self.marks)(*flat)

    def body(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Run one step, for those members that go on."""
        goes = mapped(self.loop.cond, self.size, self.given, [True])(*flat)[0]
        body = chosen_by_last(self.loop.body, alike=False)
        new = mapped(body, self.size, [*self.given, True], self.marks)(*flat, goes)
        return tuple(
            torch.where(goes.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, old)
            for leaf, old in zip(new, flat, strict=False)
        )
