"""Formulas of all leaves as one node of autograd's graph.

The node keeps its inputs alone. Its backward pass runs the formulas once more under autograd. So a recorded step costs
one node, not twenty operations for each leaf, and its derivatives of any order are those of the formulas.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def recorded(
    run: Callable[..., list[Any]], run_all: Callable[[list[Any]], list[Any]], rows: list[Any]
) -> list[list[Any]]:
    """Return `[run(*row) for row in rows]`, which `run_all(rows)` computes fast, as one node of the graph."""
    if not rows:
        return []
    width = len(rows[0])
    results = _Formulas.apply(run, run_all, width, *(value for row in rows for value in row))
    size = len(results) // len(rows)
    return [list(results[i * size : (i + 1) * size]) for i in range(len(rows))]


def _run_rows(run: Callable[..., list[Any]], width: int, values: Any) -> tuple[Any, ...]:
    return tuple(out for i in range(0, len(values), width) for out in run(*values[i : i + width]))


class _Formulas(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Any, run_all: Any, width: int, *values: Any) -> tuple[Any, ...]:
        ctx.run, ctx.width = run, width
        ctx.is_tensor = [isinstance(value, Tensor) for value in values]
        ctx.save_for_backward(*(value for value in values if isinstance(value, Tensor)))
        ctx.set_materialize_grads(False)
        rows = [values[i : i + width] for i in range(0, len(values), width)]
        results = [out for row in run_all(rows) for out in row]
        given = {id(value) for value in values}
        return tuple(out.clone() if id(out) in given else out for out in results)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        saved = iter(ctx.saved_tensors)
        values: list[Any]
        with torch.enable_grad():
            # each input is a new node: an input may depend on another one, such as a gradient on its parameter
            values = [_alias(next(saved)) if flag else None for flag in ctx.is_tensor]
            results = _run_rows(ctx.run, ctx.width, values)
            wanted = [i for i, value in enumerate(values) if value is not None and value.requires_grad]
            pairs = [
                (out, ct) for out, ct in zip(results, cotangents, strict=True) if ct is not None and out.requires_grad
            ]
        grads: list[Any] = [None] * len(values)
        if pairs and wanted:
            outs, cts = zip(*pairs, strict=True)
            found = torch.autograd.grad(
                outs, [values[i] for i in wanted], cts, create_graph=torch.is_grad_enabled(), allow_unused=True
            )
            for index, grad in zip(wanted, found, strict=True):
                grads[index] = grad
        return None, None, None, *grads


def _alias(value: Tensor) -> Tensor:
    return value.view_as(value) if value.requires_grad else value
