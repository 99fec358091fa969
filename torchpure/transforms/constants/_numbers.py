"""Tensors that torch takes for constants: slopes, `alpha=`, `eps=`, margins, and arguments without a derivative.

torch reads a number, and the derivative through it is lost. If such a tensor is differentiated, a formula in tensors
runs, or the call is refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure.errors import TransformError
from torchpure.transforms import formulas
from torchpure.transforms.engine import is_differentiated, user_line

_KEYWORD = 99  # the position of what is given by name only

# operations -> where the numbers stand among their arguments, and the formula; None: refused
_FORMULAS: list[tuple[list[Any], dict[str, int], Any]] = [
    ([torch.add, Tensor.add, Tensor.__add__], {"alpha": _KEYWORD}, formulas.add),
    ([torch.sub, torch.subtract, Tensor.sub, Tensor.subtract], {"alpha": _KEYWORD}, formulas.sub),
    ([torch.rsub], {"alpha": _KEYWORD}, formulas.rsub),
    ([torch.index_add, Tensor.index_add], {"alpha": _KEYWORD}, formulas.index_add),
    ([torch.addcmul, Tensor.addcmul], {"value": _KEYWORD}, formulas.addcmul),
    ([torch.addcdiv, Tensor.addcdiv], {"value": _KEYWORD}, formulas.addcdiv),
    (
        [torch.addmm, Tensor.addmm, torch.addmv, Tensor.addmv, torch.baddbmm, Tensor.baddbmm],
        {"alpha": _KEYWORD, "beta": _KEYWORD},
        formulas.addmm,
    ),
    ([torch.addr, Tensor.addr], {"alpha": _KEYWORD, "beta": _KEYWORD}, formulas.addr),
    ([torch.addbmm, Tensor.addbmm], {"alpha": _KEYWORD, "beta": _KEYWORD}, formulas.addbmm),
    ([torch.full], {"fill_value": 1}, formulas.full),
    ([torch.full_like], {"fill_value": 1}, formulas.full_like),
    ([Tensor.new_full], {"fill_value": 2}, formulas.new_full),
    ([torch.trapezoid, torch.trapz], {"dx": _KEYWORD}, formulas.trapezoid),
    ([torch.cumulative_trapezoid], {"dx": _KEYWORD}, formulas.cumulative_trapezoid),
    ([torch.var, Tensor.var], {"correction": _KEYWORD}, formulas.var),
    ([torch.std, Tensor.std], {"correction": _KEYWORD}, formulas.std),
    ([torch.clamp, Tensor.clamp, torch.clip, Tensor.clip], {"min": 1, "max": 2}, formulas.clamp),
    ([F.leaky_relu], {"negative_slope": 1}, formulas.leaky_relu),
    ([F.elu], {"alpha": 1}, formulas.elu),
    ([F.celu, torch.celu], {"alpha": 1}, formulas.celu),
    ([F.hardtanh], {"min_val": 1, "max_val": 2}, formulas.hardtanh),
    ([F.threshold, torch.threshold], {"threshold": 1, "value": 2}, formulas.threshold),
    ([torch.hardshrink, Tensor.hardshrink], {"lambd": 1}, formulas.hardshrink),
    ([F.softshrink], {"lambd": 1}, formulas.softshrink),
    ([F.softplus], {"beta": 1, "threshold": 2}, formulas.softplus),
    ([F.smooth_l1_loss], {"beta": 5}, formulas.smooth_l1_loss),
    ([F.huber_loss], {"delta": 3}, formulas.huber_loss),
    ([F.hinge_embedding_loss], {"margin": 2}, formulas.hinge_embedding_loss),
    ([F.margin_ranking_loss], {"margin": 3}, formulas.margin_ranking_loss),
    ([F.triplet_margin_loss], {"margin": 3}, formulas.triplet_margin_loss),
    ([F.poisson_nll_loss], {"eps": 5}, formulas.poisson_nll_loss),
    ([F.rms_norm, torch.rms_norm], {"eps": 3}, formulas.rms_norm),
    ([F.layer_norm, torch.layer_norm], {"eps": 4}, formulas.layer_norm),
    ([F.group_norm], {"eps": 4}, formulas.group_norm),
    ([F.pad], {"value": 3}, formulas.pad),
    ([F.cross_entropy], {"label_smoothing": 7, "weight": 2}, formulas.cross_entropy),
    ([F.nll_loss], {"weight": 2}, formulas.nll_loss),
    ([F.binary_cross_entropy], {"weight": 2}, formulas.binary_cross_entropy),
    (
        [F.binary_cross_entropy_with_logits],
        {"weight": 2, "pos_weight": 6},
        formulas.binary_cross_entropy_with_logits,
    ),
    ([F.multilabel_soft_margin_loss], {"weight": 2}, formulas.multilabel_soft_margin_loss),
    ([F.multi_margin_loss], {"margin": 3, "weight": 4}, formulas.multi_margin_loss),
    ([torch.logit, torch.special.logit, Tensor.logit], {"eps": 1}, formulas.logit),
]
_REFUSED: list[tuple[list[Any], dict[str, int]]] = [
    (
        [
            Tensor.add_,
            Tensor.sub_,
            Tensor.subtract_,
            Tensor.index_add_,
            Tensor.addcmul_,
            Tensor.addcdiv_,
            Tensor.addmm_,
            Tensor.addmv_,
            Tensor.baddbmm_,
            Tensor.addr_,
            Tensor.addbmm_,
            torch.addmv_,
            torch.sspaddmm,
            Tensor.sspaddmm,
        ],
        {"alpha": _KEYWORD, "beta": _KEYWORD, "value": _KEYWORD},
    ),
    ([torch.arange, torch.range], {"start": 0, "end": 1, "step": 2}),
    ([torch.cdist], {"p": 2}),
    ([torch.dist, Tensor.dist], {"p": 2}),
    (
        [torch.norm, Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm, torch.linalg.matrix_norm],
        {"p": 1, "ord": 1},
    ),
    ([torch.pdist, F.pdist], {"p": 1}),
    ([F.pairwise_distance, torch.pairwise_distance], {"p": 2, "eps": 3}),
    ([F.cosine_similarity, torch.cosine_similarity], {"eps": 3}),
    ([F.cosine_embedding_loss], {"margin": 3}),
    ([F.normalize], {"p": 1}),
    ([torch.renorm, Tensor.renorm, Tensor.renorm_], {"p": 1, "maxnorm": 3}),
    (
        [torch.nan_to_num, Tensor.nan_to_num, torch.nan_to_num_, Tensor.nan_to_num_],
        {"nan": 1, "posinf": 2, "neginf": 3},
    ),
    ([torch.segment_reduce], {"initial": _KEYWORD}),
    ([torch.std_mean, torch.var_mean], {"correction": _KEYWORD}),
    ([torch.constant_pad_nd], {"value": 2}),
    ([torch.scalar_tensor], {"s": 0}),
    ([torch.gradient], {"spacing": _KEYWORD}),
    ([torch.histc, Tensor.histc], {"min": 2, "max": 3}),
    ([torch.hamming_window, torch.kaiser_window], {"alpha": 2, "beta": 2}),
    ([torch.linalg.pinv, torch.pinverse, Tensor.pinverse], {"rtol": _KEYWORD, "rcond": 1}),
    ([torch.fft.fftfreq, torch.fft.rfftfreq], {"d": 1}),
    ([torch.logit_, Tensor.logit_], {"eps": 1}),
    ([torch.threshold_], {"threshold": 1, "value": 2}),
    ([torch.celu_, F.celu_, F.elu_, F.leaky_relu_], {"alpha": 1, "negative_slope": 1}),
    ([F.hardtanh_], {"min_val": 1, "max_val": 2}),
    ([F.rrelu, torch.rrelu, F.rrelu_, torch.rrelu_], {"lower": 1, "upper": 2}),
    (
        [
            F.dropout,
            F.dropout1d,
            F.dropout2d,
            F.dropout3d,
            F.alpha_dropout,
            F.feature_alpha_dropout,
            torch.dropout,
            torch.alpha_dropout,
        ],
        {"p": 1},
    ),
    ([torch.dropout_, torch.native_dropout, torch.feature_dropout, torch.feature_alpha_dropout], {"p": 1}),
    ([F.scaled_dot_product_attention], {"dropout_p": 4, "scale": 6}),
    ([F.batch_norm], {"momentum": 6, "eps": 7}),
    ([F.instance_norm], {"momentum": 6, "eps": 7}),
    ([torch.native_layer_norm], {"eps": 4}),
    ([torch.native_group_norm], {"eps": 7}),
    ([torch.native_batch_norm], {"momentum": 6, "eps": 7}),
    ([F.embedding, F.embedding_bag], {"max_norm": 3, "norm_type": 4}),
    ([F.linear_cross_entropy], {"label_smoothing": _KEYWORD}),
    ([F.interpolate, F.upsample], {"scale_factor": 2}),
    ([F.multi_head_attention_forward], {"dropout_p": 10}),
    ([torch.logspace], {"base": 3}),
    ([torch.special.airy_ai], {"x": 0}),
    ([torch.quantile, torch.nanquantile, Tensor.quantile, Tensor.nanquantile], {"q": 1}),
    ([torch.scatter, Tensor.scatter, Tensor.scatter_], {"value": _KEYWORD}),
    ([Tensor.fill_diagonal_], {"fill_value": 1}),
    ([Tensor.clamp_, Tensor.clip_, torch.clamp_, torch.clip_], {"min": 1, "max": 2}),
    ([Tensor.normal_], {"mean": 1, "std": 2}),
]


def _table() -> dict[Any, tuple[dict[str, int], Callable[..., Any] | None]]:
    found: dict[Any, Any] = {operation: (where, None) for operations, where in _REFUSED for operation in operations}
    found.update({operation: (where, rule) for operations, where, rule in _FORMULAS for operation in operations})
    return found


NUMBERS = _table()  # operation -> (where its numbers stand, the formula)
BY_KEYWORD = frozenset(  # operations whose numbers are given by name alone, such as `add`
    operation for operation, (where, _) in NUMBERS.items() if set(where.values()) == {_KEYWORD}
)


def with_tensors_as_numbers(operation: Any, args: Any, kwargs: Any) -> Any:
    """Return what runs for an operation that wants numbers: itself, or its formula if one is a differentiated tensor.

    Raises:
        TransformError: there is no formula.
    """
    where, rule = NUMBERS[operation]
    count = len(args)
    for name, position in where.items():
        given = kwargs.get(name) if kwargs and name in kwargs else args[position] if position < count else None
        if given is not None and any(map(is_differentiated, given if isinstance(given, list | tuple) else (given,))):
            if rule is None:
                raise TransformError(
                    f"{_name(operation)}{user_line()}: `{name}` is a tensor that is differentiated, and torch takes it "
                    "for a constant: the derivative would be lost. If that is meant, pass tp.stop_gradient of it"
                )
            return rule
    return operation


def _name(operation: Any) -> str:
    return getattr(operation, "__name__", str(operation)).removeprefix("linalg_").removeprefix("special_")
