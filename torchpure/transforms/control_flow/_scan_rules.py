"""`scan` as an operation: its derivatives and its batching rule are scans again.

The forward pass saves the carries; the backward pass runs each step again from its carry. With an inverse it saves the
last carry only, and the backward pass undoes one step after the other (Maclaurin et al. 2015, arXiv:1502.03492).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchpure.transforms.calls import (
    FlatFn,
    differentiable,
    needs_rules,
    replace_at,
    save_for_rules,
    saved_primals,
    unwrap_closed_levels,
)
from torchpure.transforms.context import suppress_callbacks
from torchpure.transforms.engine import (
    dense,
    is_variable,
    torch_jvp,
    torch_vjp,
    unaliased,
    without_zerotensors,
)

from ._batched_body import batch_body, batched_fixpoint, expand_members, expand_where, is_sample_enough
from ._scan_loop import ScanLoop, backward_may_follow, first_slice, variable_positions


def scan_flat(
    body: FlatFn,
    carry: Sequence[Tensor],
    xs: Sequence[Tensor],
    consts: Sequence[Tensor],
    length: int,
    reverse: bool,
    inverse: FlatFn | None = None,
) -> tuple[Tensor, ...]:
    """Return (*carry, *ys), under every transform."""
    flat = (*carry, *xs, *consts)
    loop = ScanLoop(body, len(carry), len(xs), length, reverse, inverse=inverse)
    if not needs_rules(flat):
        return loop.run(*flat)
    if inverse is not None or not backward_may_follow(flat):
        return tuple(_Scan.apply(loop, *flat))
    out = _Scan.apply(replace(loop, saves_carries=True), *flat)
    return tuple(out[: len(out) - len(carry)])


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(loop: ScanLoop, *flat: Tensor) -> tuple[Tensor, ...]:
        return unaliased(loop.run(*flat), flat)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        loop, *flat = inputs
        saved_carries = output[len(output) - loop.num_carry :] if loop.saves_carries else ()
        saved_carries = output[: loop.num_carry] if loop.inverse else saved_carries
        save_for_rules(ctx, loop, (*flat, *saved_carries), output)
        ctx.num_inputs, ctx.output_is_variable = len(flat), list(map(is_variable, output))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        saved = [unwrap_closed_levels(leaf) for leaf in ctx.saved_tensors]
        flat, saved_carries = saved[: ctx.num_inputs], saved[ctx.num_inputs :]
        pull = _ScanVjp(ctx.call, flat, ctx.needs_input_grad[1:], [unwrap_closed_levels(part) for part in cotangents])
        return (None, *pull.run(saved_carries))

    @staticmethod
    @differentiable
    def jvp(ctx: Any, _: None, *tangents: Any) -> Any:
        return _scan_jvp(ctx.call, saved_primals(ctx)[: ctx.num_inputs], tangents, ctx.output_is_variable)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (loop, *flat), size = args, info.batch_size
        carry, xs, consts = loop.split(flat)
        dims, x_dims, const_dims = loop.split(in_dims[1:])
        xs = [x if dim is None else x.movedim(dim, 1) for x, dim in zip(xs, x_dims, strict=True)]
        consts = [x if dim is None else x.movedim(dim, 0) for x, dim in zip(consts, const_dims, strict=True)]
        carry = [x if dim is None else x.movedim(dim, 0) for x, dim in zip(carry, dims, strict=True)]
        xs_consts_batched = [dim is not None for dim in (*x_dims, *const_dims)]
        if loop.inverse:  # it may make any part of the carry depend on the member
            carry = [expand_members(x, None, size) if dim is None else x for x, dim in zip(carry, dims, strict=True)]
            dims = (0,) * len(carry)
        init_batched = [dim is not None for dim in dims]
        samples = [*carry, *(first_slice(x) for x in xs), *consts]
        carry_batched, sampled = batched_fixpoint(loop.body, size, init_batched, xs_consts_batched, samples)
        carry = expand_where(carry, init_batched, carry_batched, size)
        out = [*carry_batched, *sampled.flags[loop.num_carry :]]
        rows_batched = [*out[loop.num_carry :], *(carry_batched if loop.saves_carries else ())]
        out_dims = (*(0 if f else None for f in carry_batched), *(1 if f else None for f in rows_batched))
        if is_sample_enough(sampled, flat):
            last = expand_where(sampled.results[: loop.num_carry], sampled.flags[: loop.num_carry], carry_batched, size)
            return loop.stack_sample(last, sampled.results[loop.num_carry :], carry), out_dims
        flags = [*carry_batched, *xs_consts_batched]
        inverse = loop.inverse and batch_body(loop.inverse, size, flags, carry_batched)
        inner = replace(loop, body=batch_body(loop.body, size, flags, out), inverse=inverse)
        return _Scan.apply(inner, *carry, *xs, *consts), out_dims


def _scan_jvp(
    loop: ScanLoop, flat: Sequence[Tensor], tangents: Sequence[Any], output_is_variable: list[bool]
) -> tuple[Any, ...]:
    """Return the output tangents of a scan, by one scan over values and tangents."""
    num_carry, num_xs = loop.num_carry, loop.num_xs
    carry, xs, consts = loop.split(flat)
    diff_carry = variable_positions(carry, lambda i: True)
    diff_xs = variable_positions(xs, lambda i: tangents[i] is not None, num_carry)
    diff_consts = variable_positions(consts, lambda i: tangents[i] is not None, num_carry + num_xs)
    diff_inputs = [*diff_carry, *diff_xs, *diff_consts]
    if not diff_inputs:
        return (None,) * len(output_is_variable)
    tangent_at = {i: torch.zeros_like(flat[i]) if tangents[i] is None else tangents[i] for i in diff_inputs}

    def dual_body(*inputs: Tensor) -> tuple[Tensor, ...]:
        rest = iter(inputs)
        parts = [[next(rest) for _ in range(n)] for n in sizes]
        values, in_tangents = [*parts[0], *parts[2], *parts[4]], [*parts[1], *parts[3], *parts[5]]
        with suppress_callbacks():
            out, out_tangents = _jvp(loop.body, values, diff_inputs, in_tangents)
        saved_carries = parts[1] if loop.saves_carries else ()
        return (*out[:num_carry], *out_tangents[: len(diff_carry)], *out_tangents[len(diff_carry) :], *saved_carries)

    sizes = [num_carry, len(diff_carry), num_xs, len(diff_xs), len(consts), len(diff_consts)]
    out = scan_flat(
        dual_body,
        (*carry, *(tangent_at[i] for i in diff_carry)),
        (*xs, *(tangent_at[i] for i in diff_xs)),
        (*consts, *(tangent_at[i] for i in diff_consts)),
        loop.length,
        loop.reverse,
    )
    rest = iter(out[num_carry:])
    return tuple(next(rest) if flag else None for flag in output_is_variable)


def _jvp(
    body: FlatFn, values: Sequence[Tensor], diff_inputs: Sequence[int], in_tangents: Sequence[Tensor]
) -> tuple[Sequence[Tensor], list[Tensor]]:
    """Return the outputs of a body, and the tangents of those that are variables."""
    output_is_variable: list[bool] = []

    def restricted(*inputs: Tensor) -> Any:
        out = body(*replace_at(values, diff_inputs, inputs))
        output_is_variable[:] = map(is_variable, out)
        return tuple(x for x in out if is_variable(x)), [x for x in out if not is_variable(x)]

    out, out_tangents, non_variables = torch_jvp(
        restricted, tuple(dense(values[i]) for i in diff_inputs), tuple(in_tangents), has_aux=True
    )
    variables, rest = iter(out), iter(non_variables)
    outputs = [next(variables) if flag else next(rest) for flag in output_is_variable]
    return outputs, list(map(without_zerotensors, out_tangents))


class _ScanVjp:
    """The backward pass of a scan: a scan in the other direction."""

    def __init__(
        self, loop: ScanLoop, flat: Sequence[Tensor], needs_grad: Sequence[bool], cotangents: Sequence[Any]
    ) -> None:
        self.loop, self.flat = loop, flat
        self.carry, self.xs, self.consts = loop.split(flat)
        num_carry = loop.num_carry
        end = len(cotangents) - num_carry if loop.saves_carries else len(cotangents)
        self.diff_carry = variable_positions(self.carry, lambda i: True)
        self.diff_xs = variable_positions(self.xs, lambda i: needs_grad[i], num_carry)
        self.diff_consts = variable_positions(self.consts, lambda i: needs_grad[i], num_carry + loop.num_xs)
        self.carry_cotangents = [cotangents[i] for i in self.diff_carry]
        self.used_ys = [i for i in range(num_carry, end) if cotangents[i] is not None]
        self.y_cotangents = [cotangents[i] for i in self.used_ys]
        saved_cotangents = cotangents[end:]
        # a derivative rule may have used the saved carries
        self.used_saved = [i for i in self.diff_carry if saved_cotangents and saved_cotangents[i] is not None]
        self.saved_carry_cotangents = [saved_cotangents[i] for i in self.used_saved]

    def run(self, saved_carries: Sequence[Tensor]) -> list[Any]:
        """Return the cotangents of all inputs; None where there is none."""
        parts: list[Any] = [None] * len(self.flat)
        if not any(x is not None for x in (*self.carry_cotangents, *self.y_cotangents, *self.saved_carry_cotangents)):
            return parts
        carry_cotangents = [
            torch.zeros_like(self.carry[i]) if x is None else x
            for i, x in zip(self.diff_carry, self.carry_cotangents, strict=True)
        ]
        const_sums = [torch.zeros_like(self.flat[i]) for i in self.diff_consts]
        if self.loop.inverse:
            out = self._scan_back((*carry_cotangents, *const_sums), saved_carries)
        else:
            carries = saved_carries if self.loop.saves_carries else self._carries()
            rows = (*self.xs, *carries, *self.y_cotangents, *self.saved_carry_cotangents)
            out = self._scan(self.step, (*carry_cotangents, *const_sums), rows)
        return replace_at(parts, [*self.diff_carry, *self.diff_consts, *self.diff_xs], out)

    def _scan(self, step: FlatFn, carry: Sequence[Tensor], rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return scan_flat(step, carry, rows, self.consts, self.loop.length, not self.loop.reverse)

    def _scan_back(self, sums: Sequence[Tensor], last: Sequence[Tensor]) -> list[Tensor]:
        """Run the backward pass, and undo each step on the way: the carry is another part of its carry."""
        num_sums, num_carry, num_xs = len(sums), len(last), len(self.xs)
        inverse = self.loop.inverse
        assert inverse is not None

        def step(*inputs: Tensor) -> tuple[Tensor, ...]:
            after, xs = inputs[num_sums : num_sums + num_carry], inputs[num_sums + num_carry :][:num_xs]
            rest = inputs[num_sums + num_carry + num_xs :]
            with suppress_callbacks():
                before = inverse(*after, *xs, *rest[len(self.used_ys) :])
            out = self.step(*inputs[:num_sums], *xs, *before, *rest)
            return (*out[:num_sums], *before, *out[num_sums:])

        copies = [leaf.clone() for leaf in last]  # an inverse that writes to its carry must not reach the result
        out = self._scan(step, (*sums, *copies), (*self.xs, *self.y_cotangents))
        return [*out[:num_sums], *out[num_sums + num_carry :]]

    def step(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Re-run one step and return the cotangents of its inputs."""
        rest = iter(inputs)
        groups = (self.diff_carry, self.diff_consts, self.xs, self.carry, self.used_ys, self.used_saved, self.consts)
        carry_cotangents, const_sums, xs, carry, y_cotangents, saved_cotangents, consts = (
            [next(rest) for _ in group] for group in groups
        )
        values = [*carry, *xs, *consts]
        diff_inputs = [*self.diff_carry, *self.diff_xs, *self.diff_consts]

        def restricted(*variables: Tensor) -> tuple[Tensor, ...]:
            out = self.loop.body(*replace_at(values, diff_inputs, variables))
            return tuple(out[i] for i in (*self.diff_carry, *self.used_ys))

        with suppress_callbacks():
            _, pull = torch_vjp(restricted, *(values[i] for i in diff_inputs))
            parts = pull((*carry_cotangents, *y_cotangents))
        ends = len(self.diff_carry), len(self.diff_carry) + len(self.diff_xs)
        carry_parts = list(parts[: ends[0]])
        for i, saved_cotangent in zip(self.used_saved, saved_cotangents, strict=True):
            position = self.diff_carry.index(i)
            carry_parts[position] = carry_parts[position] + saved_cotangent
        const_sums = [one + two for one, two in zip(const_sums, parts[ends[1] :], strict=True)]
        return (*carry_parts, *const_sums, *parts[ends[0] : ends[1]])

    def _carries(self) -> tuple[Tensor, ...]:
        """Run the loop again, to compute its carries."""
        loop = self.loop

        def step(*inputs: Tensor) -> tuple[Tensor, ...]:
            with suppress_callbacks():
                return (*loop.body(*inputs)[: loop.num_carry], *inputs[: loop.num_carry])

        return scan_flat(step, self.carry, self.xs, self.consts, loop.length, loop.reverse)[loop.num_carry :]
