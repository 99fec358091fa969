"""Which operations are affine, products, or functions of each entry. All others have the generic rule.

The names are torch's; an operation is found in `torch`, `torch.Tensor`, `torch.nn.functional` and `torch.ops.aten`.
An operation that is in no list is right too: the lists only make it faster.
"""

from collections.abc import Callable
from enum import Enum, auto
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from torchpure._torch import OpOverload


class Kind(Enum):
    """How the result of an operation depends on its operands."""

    LINEAR = auto()  # in the first operand; the others are constants
    SUM = auto()  # of two operands: tensors or numbers
    JOIN = auto()  # linear in all tensors together
    AFFINE = auto()  # jointly affine in all operands, or piecewise so
    PRODUCT = auto()  # linear in each factor
    QUOTIENT = auto()  # linear in the first operand
    ELEMENTWISE = auto()  # a function of each entry, in real numbers
    OTHER = auto()


_LINEAR = """
 sum mean nansum cumsum reshape view view_as reshape_as flatten unflatten ravel transpose permute movedim moveaxis
 swapaxes swapdims t T mT H mH adjoint squeeze unsqueeze expand expand_as broadcast_to __getitem__ select narrow
 index_select gather take take_along_dim split chunk unbind tensor_split split_with_sizes flip fliplr flipud roll
 rot90 diag diagonal diag_embed diagflat trace tril triu repeat tile repeat_interleave clone contiguous to float
 double half bfloat16 type_as type real imag conj view_as_real view_as_complex neg negative unfold fold positive
 alias slice _unsafe_view
"""
_SUM = "add sub rsub subtract __rsub__ __radd__"
_JOIN = "cat concat concatenate stack hstack vstack dstack column_stack row_stack complex"
_AFFINE = """
 pad masked_fill masked_select where fft_fft index_add scatter scatter_add slice_scatter select_scatter
 avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d interpolate pixel_shuffle max min amax
 amin maximum minimum fmax fmin sort topk median cummax cummin max_pool1d max_pool2d max_pool3d lift_fresh
 detach_copy as_strided trapezoid cumulative_trapezoid diff
"""
_PRODUCT = """
 mul multiply matmul mm bmm mv dot vdot inner outer ger einsum linear conv1d conv2d conv3d conv_transpose1d
 conv_transpose2d addmm addmv baddbmm addbmm kron tensordot __rmul__ __matmul__ __rmatmul__ __mul__
"""
_ELEMENTWISE = """
 tanh sin cos tan exp expm1 exp2 log log1p log2 log10 sqrt rsqrt square reciprocal sigmoid sinh cosh asin acos atan
 asinh acosh atanh erf erfc erfinv pow __pow__ float_power softplus silu gelu elu selu celu mish logsigmoid
 tanhshrink softsign sinc lgamma digamma abs absolute relu relu6 leaky_relu hardtanh hardswish hardsigmoid clamp
 clip clamp_min clamp_max threshold deg2rad rad2deg logit i0 sgn softshrink hardshrink xlogy __rpow__
"""
FACTORS = {  # positions of the factors among the leaves of the arguments; else all
    "linear": (0, 1), "conv1d": (0, 1), "conv2d": (0, 1), "conv3d": (0, 1), "conv_transpose1d": (0, 1),
    "conv_transpose2d": (0, 1), "addmm": (1, 2), "addmv": (1, 2), "baddbmm": (1, 2), "addbmm": (1, 2),
}  # fmt: skip
WITH_BIAS = frozenset({"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"})
_QUOTIENT = "div divide true_divide __truediv__"
_SPACES: tuple[Any, ...] = (torch, torch.Tensor, F, torch.special, torch.ops.aten)


def _named(names: str, kind: Kind) -> dict[Any, Kind]:
    return {found: kind for name in names.split() for space in _SPACES if callable(found := getattr(space, name, None))}


@cache
def _kinds() -> dict[Any, Kind]:
    table = {
        **_named(_LINEAR, Kind.LINEAR),
        **_named(_SUM, Kind.SUM),
        **_named(_JOIN, Kind.JOIN),
        **_named(_AFFINE, Kind.AFFINE),
        **_named(_PRODUCT, Kind.PRODUCT),
        **_named(_QUOTIENT, Kind.QUOTIENT),
        **_named(_ELEMENTWISE, Kind.ELEMENTWISE),
    }
    for name in ("T", "mT", "H", "mH", "real", "imag"):
        table[getattr(torch.Tensor, name).__get__] = Kind.LINEAR
    return table


def kind_of(func: Callable[..., Any]) -> Kind:
    """Return how the result of an operation depends on its operands.

    >>> kind_of(torch.tanh).name, kind_of(torch.nn.functional.layer_norm).name
    ('ELEMENTWISE', 'OTHER')
    """
    if isinstance(func, OpOverload):
        func = func.overloadpacket
    return _kinds().get(func, Kind.OTHER)
