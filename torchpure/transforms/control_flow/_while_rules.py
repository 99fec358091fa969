"""`while_loop` as an operation: forward derivatives and batching are loops again; it has no backward derivative."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchpure.errors import TransformError
from torchpure.transforms.calls import (
    FlatFn,
    differentiable,
    needs_rules,
    replace_at,
    save_for_rules,
    saved_primals,
    while_p,
)
from torchpure.transforms.context import suppress_callbacks
from torchpure.transforms.engine import dense, is_variable, torch_jvp, unaliased, without_zerotensors

from ._batched_body import batch_body, batched_fixpoint, expand_where, is_sample_enough, sample
from ._cond_rules import masked_by_last


@dataclass(frozen=True, slots=True)
class WhileLoop:
    """A while loop on flat tensors: `body(*carry, *consts)` while `cond(*carry, *consts)` is True."""

    cond: Callable[..., Any]
    body: FlatFn
    num_carry: int
    name: str

    def run(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Run the loop."""
        carry, consts = flat[: self.num_carry], flat[self.num_carry :]
        out = while_p(self.cond, self.body, tuple(leaf.contiguous() for leaf in carry), tuple(consts))
        return tuple(leaf.contiguous() for leaf in out)


def while_flat(
    cond: Callable[..., Any], body: FlatFn, carry: Sequence[Tensor], consts: Sequence[Tensor], name: str
) -> tuple[Tensor, ...]:
    """Return the last carry, under every transform except backward derivatives."""
    flat, loop = (*carry, *consts), WhileLoop(cond, body, len(carry), name)
    return tuple(_While.apply(loop, *flat)) if needs_rules(flat) else loop.run(*flat)


class _While(torch.autograd.Function):
    @staticmethod
    def forward(loop: WhileLoop, *flat: Tensor) -> tuple[Tensor, ...]:
        return unaliased(loop.run(*flat), flat)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        save_for_rules(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise TransformError(
            f"while_loop: {ctx.call.name} runs an unknown number of times, which a backward pass cannot go back "
            "through: bound it with max_steps, use fori_loop, or go forwards with jvp or jacfwd"
        )

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        loop, flat = ctx.call, saved_primals(ctx)
        num_carry = loop.num_carry
        diff_carry = [i for i, leaf in enumerate(flat[:num_carry]) if is_variable(leaf)]
        diff_consts = [
            i for i, leaf in enumerate(flat) if i >= num_carry and is_variable(leaf) and tangents[i] is not None
        ]
        carry_tangents = [torch.zeros_like(flat[i]) if tangents[i] is None else tangents[i] for i in diff_carry]
        sizes = (num_carry, len(diff_carry), len(flat) - num_carry, len(diff_consts))
        dual = _DualLoop(loop, sizes, [*diff_carry, *diff_consts])
        carry, rest = (*flat[:num_carry], *carry_tangents), (*flat[num_carry:], *(tangents[i] for i in diff_consts))
        out = while_flat(dual.cond, dual.body, carry, rest, loop.name)
        return tuple(replace_at([None] * num_carry, diff_carry, out[num_carry:]))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (loop, *flat), (_, *dims), size = args, in_dims, info.batch_size
        num_carry = loop.num_carry
        flat = [leaf if dim is None else leaf.movedim(dim, 0) for leaf, dim in zip(flat, dims, strict=True)]
        in_batched = [dim is not None for dim in dims]
        init_batched, consts_batched = in_batched[:num_carry], in_batched[num_carry:]
        carry_batched, sampled = batched_fixpoint(loop.body, size, init_batched, consts_batched, flat)
        carry = expand_where(flat[:num_carry], init_batched, carry_batched, size)
        flags = [*carry_batched, *consts_batched]
        cond_batched = sample(loop.cond, size, flags, [*carry, *flat[num_carry:]]).flags[0]
        if cond_batched:
            carry = expand_where(carry, carry_batched, [True] * num_carry, size)
            carry_batched = [True] * num_carry
        out_dims = tuple(0 if flag else None for flag in carry_batched)
        if is_sample_enough(sampled, flat):
            return tuple(expand_where(sampled.results, sampled.flags, carry_batched, size)), out_dims
        batched_loop = _BatchedLoop(loop, size, [*carry_batched, *consts_batched], carry_batched)
        inner = replace(
            loop,
            cond=batched_loop.cond if cond_batched else batched_loop.shared_cond,
            body=batched_loop.body if cond_batched else batched_loop.step,
        )
        return _While.apply(inner, *carry, *flat[num_carry:]), out_dims


@dataclass(frozen=True, slots=True)
class _DualLoop:
    """A loop over values and tangents; its condition reads the values only."""

    loop: WhileLoop
    sizes: tuple[int, int, int, int]  # carry, its tangents, constants, their tangents
    diff_inputs: list[int]

    def _parts(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        rest = iter(inputs)
        carry, tangents, consts, const_tangents = ([next(rest) for _ in range(size)] for size in self.sizes)
        return [*carry, *consts], [*tangents, *const_tangents]

    def cond(self, *inputs: Tensor) -> Any:
        """Return the condition of the original loop."""
        with suppress_callbacks():
            return self.loop.cond(*self._parts(inputs)[0])

    def body(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run one step on values and tangents."""
        values, tangents = self._parts(inputs)

        def restricted(*variables: Tensor) -> Any:
            out = self.loop.body(*replace_at(values, self.diff_inputs, variables))
            return tuple(leaf for leaf in out if is_variable(leaf)), list(out)

        if not self.diff_inputs:
            return tuple(self.loop.body(*values))
        with suppress_callbacks():
            _, out_tangents, out = torch_jvp(
                restricted, tuple(dense(values[i]) for i in self.diff_inputs), tuple(tangents), has_aux=True
            )
        return (*out, *map(without_zerotensors, out_tangents))


@dataclass(frozen=True, slots=True)
class _BatchedLoop:
    """A loop over all members, until the last one is done; a member that is done keeps its carry."""

    loop: WhileLoop
    size: int
    in_batched: list[bool]
    carry_batched: list[bool]

    def shared_cond(self, *flat: Tensor) -> Any:
        """Return the condition, if it is the same for all members."""
        return batch_body(self.loop.cond, self.size, self.in_batched, [False])(*flat)[0]

    def cond(self, *flat: Tensor) -> Tensor:
        """Tell whether any member continues."""
        return batch_body(self.loop.cond, self.size, self.in_batched, [True])(*flat)[0].any()

    def step(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Run one step on all members."""
        return batch_body(self.loop.body, self.size, self.in_batched, self.carry_batched)(*flat)

    def body(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Run one step; only members that continue get its results."""
        mask = batch_body(self.loop.cond, self.size, self.in_batched, [True])(*flat)[0]
        body = masked_by_last(self.loop.body, substituted=False)
        new = batch_body(body, self.size, [*self.in_batched, True], self.carry_batched)(*flat, mask)
        return tuple(
            torch.where(mask.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, old)
            for leaf, old in zip(new, flat, strict=False)
        )
