"""Checks of dtypes that torch skips for fake tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import OpOverload

_aten = torch.ops.aten
_SAME_DTYPE: dict[Any, tuple[int, ...]] = {  # the arguments that must have one dtype
    _aten.mm: (0, 1), _aten.bmm: (0, 1), _aten.mv: (0, 1), _aten.dot: (0, 1), _aten.vdot: (0, 1),
    _aten.addmm: (0, 1, 2), _aten.addmm_: (0, 1, 2), _aten.addbmm: (0, 1, 2), _aten.addbmm_: (0, 1, 2),
    _aten.baddbmm: (0, 1, 2), _aten.baddbmm_: (0, 1, 2), _aten.addmv: (1, 2), _aten.addmv_: (1, 2),
    _aten.convolution: (0, 1, 2), _aten.linalg_cross: (0, 1), _aten.binary_cross_entropy: (0, 1, 2),
    _aten.index_put: (0, 2), _aten.index_put_: (0, 2), _aten.index_add: (0, 3), _aten.index_add_: (0, 3),
    _aten.index_copy: (0, 3), _aten.index_copy_: (0, 3), _aten.index_reduce: (0, 3), _aten.index_reduce_: (0, 3),
    _aten.nll_loss_forward: (0, 2), _aten.nll_loss2d_forward: (0, 2),
}  # fmt: skip
# the parameters that must have one dtype: the input's, or float32 if that has half precision
_NORMS: dict[Any, tuple[int, ...]] = {
    _aten.native_layer_norm: (2, 3), _aten.native_group_norm: (1, 2), _aten.native_batch_norm: (1, 2, 3, 4),
    _aten._native_batch_norm_legit: (1, 2, 3, 4), _aten._native_batch_norm_legit_no_training: (1, 2, 3, 4),
}  # fmt: skip
_HALVES = {torch.bfloat16, torch.float16}


class MixedDtypesError(RuntimeError):
    """An operation that needs one dtype got several."""


def check_dtypes(func: Any, args: Sequence[Any]) -> None:
    """Refuse dtypes that the operation refuses for real tensors.

    Raises:
        MixedDtypesError: the operation needs one dtype, and got several.
    """
    packet: Any = func.overloadpacket if isinstance(func, OpOverload) else None
    given = [args[i] for i in _SAME_DTYPE.get(packet) or _NORMS.get(packet) or () if i < len(args)]
    dtypes = dict.fromkeys(leaf.dtype for leaf in given if isinstance(leaf, Tensor))
    if packet in _NORMS and not (args[0].dtype in _HALVES and set(dtypes) == {torch.float32}):
        dtypes = {args[0].dtype: None} | dtypes
    if len(dtypes) > 1:
        came = " and ".join(f"a {str(dtype).removeprefix('torch.')} tensor" for dtype in dtypes)
        raise MixedDtypesError(f"gives {came} to `{func}`, which needs one dtype: cast one of them with .to(dtype)")
