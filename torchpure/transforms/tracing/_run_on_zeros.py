"""Operations that run on zeros to find the layout of their results: this takes no time where tensors are small."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure import tree

_aten = torch.ops.aten
MAX_ELEMENTS = 1 << 16
RUNNABLE = frozenset({  # operations that return new tensors, and raise no error for zeros
    _aten.native_layer_norm.default, _aten.native_layer_norm_backward.default,
    _aten.native_batch_norm.default, _aten.native_batch_norm_backward.default,
    _aten._softmax.default, _aten._softmax_backward_data.default,
    _aten._log_softmax.default, _aten._log_softmax_backward_data.default, _aten.nll_loss_forward.default,
    _aten.nll_loss_backward.default, _aten.convolution.default, _aten.convolution_backward.default,
    _aten.max_pool2d_with_indices.default, _aten.max_pool2d_with_indices_backward.default, _aten.avg_pool2d.default,
    _aten.avg_pool2d_backward.default, _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    _aten.var.correction, _aten.var_mean.correction, _aten.sort.default,
    _aten.topk.default, _aten.scatter_add.default, _aten.scatter.value, _aten.scatter.src, _aten.index_add.default,
    _aten.cumprod.default, _aten.logsumexp.default, _aten.constant_pad_nd.default, _aten.flip.default,
    _aten.roll.default, _aten.tril.default, _aten.triu.default, _aten.prod.default, _aten.prod.dim_int,
    _aten.linalg_vector_norm.default,
})  # fmt: skip


def can_run(args: Sequence[Any]) -> bool:
    """Return whether tensors are so small that an operation on them takes no time."""
    return sum(leaf.numel() for leaf in tree.leaves(args) if isinstance(leaf, Tensor)) <= MAX_ELEMENTS


def zeros_like(args: Sequence[Any]) -> list[Any]:
    """Return arguments with zeros in the place of all numbers of tensors, in memory of the same layout."""
    return [
        torch.zeros(arg.untyped_storage().nbytes() // arg.element_size(), dtype=arg.dtype).as_strided(
            arg.shape, arg.stride(), arg.storage_offset()
        )
        if isinstance(arg, Tensor)
        else zeros_like(arg)
        if isinstance(arg, list | tuple)
        else arg
        for arg in args
    ]
