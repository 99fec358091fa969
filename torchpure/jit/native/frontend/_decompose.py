"""Decompose a traced program into fewer kinds of operations, without in-place operations.

Law: the decomposed program computes what the program does.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import GraphModule

from torchpure._torch import HigherOrderOperator, core_aten_decompositions, get_decompositions
from torchpure.jit.native.ir import UnsupportedError
from torchpure.transforms.tracing import trace

from ._layer_rules import layer_rules

_aten = torch.ops.aten
_MORE_OPERATIONS = (
    _aten._softmax, _aten._log_softmax, _aten._softmax_backward_data, _aten._log_softmax_backward_data,
    _aten.linalg_vector_norm, _aten.native_group_norm, _aten.native_group_norm_backward, _aten.native_layer_norm,
    _aten.native_layer_norm_backward, _aten.native_batch_norm, _aten._native_batch_norm_legit_functional,
    _aten.nll_loss_forward, _aten.nll_loss_backward, _aten.gelu, _aten.gelu_backward, _aten.tanh_backward,
    _aten.sigmoid_backward, _aten.threshold_backward, _aten.embedding_dense_backward, _aten.lerp, _aten.addcmul,
    _aten.addcdiv, _aten.huber_loss, _aten.smooth_l1_loss, _aten.mse_loss, _aten.mse_loss_backward, _aten.linspace,
    _aten.leaky_relu, _aten.elu, _aten.hardtanh, _aten.hypot, _aten.dist,
)  # fmt: skip


@lru_cache(maxsize=1)
def _decomposition_table() -> dict[Any, Any]:
    attention = _aten._scaled_dot_product_flash_attention_for_cpu.default  # torch's rule does not return logsumexp
    sixths = _aten.hardsigmoid_backward.default  # torch's rule multiplies by 1/6 in single precision
    kept = {_aten.var.correction, _aten.var_mean.correction, attention, sixths, _aten.embedding.default}
    kept |= {_aten.roll.default, _aten.multilabel_margin_loss_forward.default}  # torch's rule counts padding
    table = {**core_aten_decompositions(), **get_decompositions(_MORE_OPERATIONS)}
    table |= {
        op: _with_index(table[op], _reject_negative) for op in (_aten.index_add.default, _aten.index_copy.default)
    }
    table[_aten.index_add.default] = _add_of_bools(table[_aten.index_add.default])
    table[_aten.std.correction] = _standard_deviation
    table[_aten.std_mean.correction] = lambda x, *args, **kwargs: (
        _standard_deviation(x, *args, **kwargs),
        torch.var_mean(x, *args, **kwargs)[1],
    )
    table |= {op: _with_index(table[op], _wrap_negative) for op in _FILLS}
    table |= {_aten.softshrink_backward.default: _shrink_backward, _aten.hardshrink_backward.default: _shrink_backward}
    table |= dict.fromkeys((_aten.eye.default, _aten.eye.m), _identity)
    table |= layer_rules(table)
    table |= {op: _row_major(table[op]) for op in _LAYER_NORMS}
    table[_aten.native_group_norm.default] = _if_row_major(table[_aten.native_group_norm.default])
    table[_aten.embedding_dense_backward.default] = _embedding_backward(table[_aten.embedding_dense_backward.default])
    return {op: rule for op, rule in table.items() if op not in kept}


_FILLS = (_aten.index_fill.int_Scalar, _aten.index_fill.int_Tensor)  # their indices may be negative


_LAYER_NORMS = (_aten.native_layer_norm.default, _aten.native_layer_norm_backward.default)


def _row_major(rule: Any) -> Any:
    """Return a rule whose results have the strides of torch's kernel, with which later views were traced."""

    def decompose(*args: Any) -> Any:
        return rule(*(arg.contiguous() if isinstance(arg, Tensor) else arg for arg in args))

    return decompose


def _if_row_major(rule: Any) -> Any:
    """Return a rule for row-major tensors. For others, such as channels last, torch's kernel is faster."""

    def decompose(x: Tensor, *args: Any) -> Any:
        return rule(x, *args) if x.is_contiguous() else NotImplemented

    return decompose


def _identity(rows: int, columns: int | None = None, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    """Make a matrix with ones on the diagonal. torch's rule counts in uint16, of which the generator has no values."""
    i, j = (torch.arange(count, device=options.get("device")) for count in (rows, rows if columns is None else columns))
    return (i[:, None] == j).to(dtype or torch.get_default_dtype())


def _shrink_backward(gradient: Tensor, x: Tensor, bound: float) -> Tensor:
    return torch.where((x >= -bound) & (x <= bound), 0.0, gradient)


def _reject_negative(index: Tensor, size: int) -> Tensor:
    """Map negative indices to `size`, which is out of range. torch's rules would count them from the end."""
    return torch.where(index < 0, size, index)


def _wrap_negative(index: Tensor, size: int) -> Tensor:
    return torch.where(index < 0, index + size, index)


def _with_index(rule: Any, rows: Any) -> Any:
    """Return a rule for an operation along a dimension, with `rows(index, size)` in the place of the index."""

    def decompose(x: Tensor, dim: int, index: Tensor, *rest: Any, **named: Any) -> Tensor:
        return rule(x, dim, rows(index, x.shape[dim] if x.ndim else 1), *rest, **named)

    return decompose


def _add_of_bools(rule: Any) -> Any:
    """Return a rule in which a factor of bools only says whether something is added. torch's rule multiplies by it."""

    def decompose(x: Tensor, dim: int, index: Tensor, source: Tensor, alpha: Any = 1) -> Tensor:
        if x.dtype == torch.bool:
            return rule(x, dim, index, source & bool(alpha))
        return rule(x, dim, index, source, alpha=alpha)

    return decompose


def _standard_deviation(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Tensor:
    """Compute the variance of float32 in double precision, as torch's kernel does: its square may overflow."""
    wide = x.double() if x.dtype is torch.float32 else x
    return torch.sqrt(torch.var(wide, dim, correction=1 if correction is None else correction, keepdim=keepdim)).to(
        x.dtype
    )


def _embedding_backward(rule: Any) -> Any:
    """Make an index out of range an error. torch's rule drops its gradient, and relies on the lookup to fail."""

    def decompose(gradient: Tensor, index: Tensor, count: int, padding: int, by_frequency: bool) -> Tensor:
        if by_frequency:
            return rule(gradient, index, count, padding, by_frequency)
        if padding >= 0:
            gradient = torch.where((index == padding).unsqueeze(-1), 0, gradient)
        rows = _reject_negative(index, count)
        return gradient.new_zeros(count, gradient.shape[-1]).index_put([rows], gradient, accumulate=True)

    return decompose


def decompose_program(module: GraphModule, tensors: Sequence[Tensor]) -> GraphModule:
    """Trace a program again through torch's decompositions. Programs that change temporaries become functional.

    Raises:
        UnsupportedError: a program with loops changes temporaries in place outside the loops.
    """
    run: Any = module
    if _mutates(module):
        if any(isinstance(node.target, HigherOrderOperator) for node in module.graph.nodes):
            raise UnsupportedError("changes in place around a loop")
        run = functionalize(module, remove="mutations_and_views")
    with torch.no_grad():
        made = trace(run, tensors, _decomposition_table())
    made.graph.eliminate_dead_code()
    return made


def _mutates(module: GraphModule) -> bool:
    return any(
        getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        for node in module.graph.nodes
        if node.op == "call_function"
    )
