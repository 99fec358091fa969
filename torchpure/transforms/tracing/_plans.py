"""How each operation is recorded: in one step, by its functional form, or by torch's modes."""

from functools import cache
from typing import Any, NamedTuple

import torch

from torchpure._torch import DispatchKey, OpOverload, has_kernel

from ._run_on_zeros import RUNNABLE

_aten = torch.ops.aten
_PLAIN = frozenset({  # operations whose kernels for shapes read nothing but their arguments
    _aten.mm.default, _aten.bmm.default, _aten.addmm.default, _aten.baddbmm.default, _aten.mv.default,
    _aten.dot.default, _aten.sum.default, _aten.sum.dim_IntList, _aten.mean.default, _aten.mean.dim, _aten.amax.default,
    _aten.amin.default, _aten.cat.default, _aten.stack.default, _aten.clone.default, _aten.select_backward.default,
    _aten.slice_backward.default, _aten._unsafe_view.default, _aten.ones_like.default, _aten.zeros_like.default,
    _aten.full_like.default, _aten.empty_like.default, _aten.new_zeros.default, _aten.new_ones.default,
    _aten.new_full.default, _aten.new_empty.default, _aten._to_copy.default, _aten.cumsum.default,
    _aten.max.dim, _aten.min.dim, _aten.max.default, _aten.min.default, _aten.argmax.default, _aten.argmin.default,
    _aten.gather.default, _aten.index_select.default, _aten.all.default, _aten.any.default,
    _aten.embedding.default, _aten.embedding_dense_backward.default,
    _aten.native_group_norm.default, _aten.native_group_norm_backward.default, _aten._ctc_loss.default,
    _aten._ctc_loss.Tensor, _aten._ctc_loss_backward.default, _aten._ctc_loss_backward.Tensor,
    _aten.linalg_lstsq.default, _aten.all.dim, _aten.any.dim, _aten.split.Tensor, _aten.split_with_sizes.default,
    _aten.index_put.default,
})  # fmt: skip
_CONSTRUCTORS = frozenset({
    _aten.zeros.default, _aten.ones.default, _aten.full.default, _aten.empty.memory_format, _aten.arange.default,
    _aten.arange.start, _aten.arange.start_step, _aten.eye.default, _aten.eye.m, _aten.scalar_tensor.default,
})  # fmt: skip
_ALIASES = {_aten._unsafe_view.default}  # that their schemas do not tell
_INPLACE_VIEWS = {
    _aten.squeeze_.default: _aten.squeeze.default, _aten.squeeze_.dim: _aten.squeeze.dim,
    _aten.squeeze_.dims: _aten.squeeze.dims, _aten.unsqueeze_.default: _aten.unsqueeze.default,
    _aten.t_.default: _aten.t.default, _aten.transpose_.default: _aten.transpose.int,
}  # fmt: skip
_EXCLUDED_TAGS = {
    torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded,
    torch.Tag.inplace_view,
}  # fmt: skip


class Plan(NamedTuple):
    """How an operation is recorded."""

    target: Any  # the operation of the node
    name: str
    kernel: Any  # the operation that is run for the layout of the result
    constructs: bool = False  # it takes no tensor
    reshapes: bool = False  # it changes the shape of its first argument
    writes: bool = False  # it writes numbers to its first argument
    aliases: bool = False  # its result shares memory with an argument
    stays: bool = False  # it writes, and its functional form is not recorded in its place


@cache
def plan_of(func: Any) -> Plan | None:
    """Return how an operation is recorded in one step; None if torch's modes must record it."""
    if not isinstance(func, OpOverload):
        return None
    name = func.overloadpacket.__name__
    if func in _INPLACE_VIEWS:
        target = _INPLACE_VIEWS[func]
        return Plan(target, name.removesuffix("_"), target, reshapes=True, aliases=True)
    if func in _CONSTRUCTORS:
        return Plan(func, name, func, constructs=True)
    if func in _PLAIN or func in RUNNABLE or _has_plain_kernel(func):
        return Plan(func, name, func, aliases=may_alias(func))
    if func is _aten.copy_.default:
        return Plan(func, name, _aten.copy.default, writes=True, stays=True)
    functional = _functional_form(func)
    return None if functional is None else Plan(func, name, functional, writes=True)


def _functional_form(func: OpOverload) -> OpOverload | None:
    """Return the elementwise operation whose result an operation in place writes to its first argument."""
    name, overload = func.overloadpacket.__name__, str(func).rpartition(".")[2]
    elementwise = func.namespace == "aten" and torch.Tag.pointwise in func.tags and name.endswith("_")
    if not elementwise or name in {"fill_", "copy_"}:  # whose functional forms are not elementwise
        return None
    # `pow_.Scalar` has the exponent as a number; `pow.Scalar` has the base as one
    overload = "Tensor_Scalar" if func is _aten.pow_.Scalar else overload
    found = getattr(getattr(_aten, name[:-1], None), overload, None)
    return found if found is not None and _has_plain_kernel(found) else None


@cache
def is_composite(func: Any) -> bool:
    """Return whether an operation is a function of others on every device."""
    key: Any = DispatchKey
    return (
        isinstance(func, OpOverload)
        and func.namespace == "aten"
        and has_kernel(func.name(), key.CompositeImplicitAutograd)
        and not (has_kernel(func.name(), key.CPU) or has_kernel(func.name(), key.CUDA))
        and [str(part.type) for part in func._schema.returns] == ["Tensor"]
    )


def may_alias(func: OpOverload) -> bool:
    """Tell whether a result may share memory with an argument."""
    return func in _ALIASES or any(part.alias_info is not None for part in func._schema.returns)


def _has_plain_kernel(func: OpOverload) -> bool:
    """Tell whether an operation is elementwise or a view, and has a kernel for shapes."""
    key: Any = DispatchKey
    schema = func._schema
    return (
        func.namespace == "aten"
        and (torch.Tag.pointwise in func.tags or func.is_view)
        and not schema.is_mutable
        and _EXCLUDED_TAGS.isdisjoint(func.tags)
        and [str(part.type) for part in schema.returns] == ["Tensor"]
        and not has_kernel(func.name(), key.CompositeImplicitAutograd)
        and (has_kernel(func.name(), key.Meta) or has_kernel(func.name(), key.CompositeExplicitAutograd))
    )
