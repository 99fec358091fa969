"""Operations whose formulas in torch are wrong at zeros, ties and far out, or that have no derivative: see `formulas`.

The rules run where one of the arguments is differentiated. Elsewhere torch's own kernels do.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torchpure._torch import FakeTensor, set_grad_enabled
from torchpure.transforms import formulas
from torchpure.transforms.constants import CONVERSIONS, NEW_TENSORS, refuse_conversion, reinterpreted, set_forward_mode
from torchpure.transforms.engine import functorch, in_any_level, innermost, is_differentiated, level_kinds

from ._failing_members import by_finite_input
from ._override import Override, Where

Rule = Callable[..., Any]
_special = torch.special


def _if_differentiated(operation: Rule, rule: Rule) -> Rule:
    def run(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values()) if kwargs else args
        follows = any(isinstance(leaf, Tensor) and is_differentiated(leaf) for leaf in given)
        return (rule if follows and kwargs.get("out") is None else operation)(*args, **kwargs)

    return run


def _if_followed(operation: Rule, rule: Rule) -> Rule:
    """Return a rule of a norm, whose value is right far out too: under vmap alone it is that of `value_and_grad`."""
    followed = _if_differentiated(operation, rule)

    def run(*args: Any, **kwargs: Any) -> Any:
        return (rule if in_any_level() and kwargs.get("out") is None else followed)(*args, **kwargs)

    return run


def _may_be_differentiated_twice(leaf: Tensor) -> bool:
    """Return whether two derivatives or more may be taken along a tensor: torch's first ones may be right, and fast."""
    levels = sum(kind != functorch.TransformType.Vmap for kind in level_kinds())
    return levels + innermost(leaf).requires_grad > 1 and is_differentiated(leaf)


def _second_of_matrix(operation: Rule, rule: Rule) -> Rule:
    """Return a rule of a function of a matrix, whose first derivative is right in torch."""

    def run(*args: Any, **kwargs: Any) -> Any:
        matrix = args[0] if args else kwargs["A"]
        twice = _may_be_differentiated_twice(matrix) and kwargs.get("out") is None
        return (rule if twice else operation)(*args, **kwargs)

    return by_finite_input(run)


def _if_exponent_is_tensor(operation: Rule, rule: Rule) -> Rule:
    """Return a rule of powers: those with a number as exponent are right in torch, and frequent."""
    followed = _if_differentiated(operation, rule)

    def run(*args: Any, **kwargs: Any) -> Any:
        chosen = followed if kwargs or isinstance(args[1], Tensor) else operation
        return chosen(*args, **kwargs)

    return run


def _if_complex(operation: Rule, rule: Rule) -> Rule:
    """Return a rule of functions that are right for real numbers in torch, and frequent."""
    followed = _if_differentiated(operation, rule)
    return lambda self, *args, **kwargs: (followed if self.is_complex() else operation)(self, *args, **kwargs)


def _normalize(*args: Any, out: Any = None, **kwargs: Any) -> Tensor:
    """Compute `F.normalize`; spectral norms of modules write their vectors to `out`, which torch cannot map."""
    result = _if_followed(F.normalize, formulas.normalize)(*args, **kwargs)
    return result if out is None else out.copy_(result)


def _in_place(rule: Rule) -> Rule:
    return lambda self, *args, **kwargs: self.copy_(rule(self.clone(), *args, **kwargs))


def _rows(
    rule: Rule, *operations: Any, where: Where = Where.ALWAYS, choose: Any = _if_differentiated
) -> list[Override]:
    return [Override([operation], where, choose(operation, rule)) for operation in operations]


_finite_matrix_norm = by_finite_input(torch.linalg.matrix_norm)
_finite_spectral_norm = by_finite_input(formulas.spectral_norm)


def _matrix_norm(
    A: Tensor,  # noqa: N803 torch's name
    ord: Any = "fro",
    dim: Any = (-2, -1),
    keepdim: bool = False,
    *,
    twice: bool = False,
    **other: Any,
) -> Tensor:
    """Compute `torch.linalg.matrix_norm`; torch's first gradients of the orders 2 and -2 are right, and faster."""
    followed = is_differentiated(A)
    if ord == "fro" and (followed or in_any_level()):
        return formulas.vector_norm(A, 2, tuple(dim), keepdim, **other)
    matrix = A.movedim(tuple(dim), (-2, -1))  # where a member that is not finite is looked for
    formula = (followed and ord == "nuc") or (twice and ord in {2, -2} and _may_be_differentiated_twice(A))
    run = _finite_spectral_norm if formula and A.numel() else _finite_matrix_norm
    norm = run(matrix, ord, **other)
    for i in sorted(i % A.ndim for i in dim) if keepdim else ():
        norm = norm.unsqueeze(i)
    return norm


_second_matrix_norm = partial(_matrix_norm, twice=True)


def _linalg_norm(x: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, **other: Any) -> Tensor:
    """Compute `torch.linalg.norm`; of a matrix, as in `_matrix_norm`."""
    if ord in {2, -2} and (x.ndim == 2 if dim is None else isinstance(dim, tuple | list) and len(dim) == 2):
        return _second_matrix_norm(x, ord, (-2, -1) if dim is None else dim, keepdim, **other)
    return formulas.linalg_norm(x, ord, dim, keepdim, **other)


def _svd(operation: Rule, rule: Rule) -> Rule:
    """Return a rule of the factors, with the singular values of another."""

    def run(*args: Any, **kwargs: Any) -> Any:
        factors = operation(*args, **kwargs)
        matrix = args[0] if args else kwargs["A" if "A" in kwargs else "input"]
        if not _may_be_differentiated_twice(matrix):
            return factors
        return type(factors)((factors[0], rule(matrix, factors[1]), factors[2]))

    return by_finite_input(run)


_masked = torch.masked.std.__globals__
SELDOM: dict[Any, Callable[[Any], bool]] = {  # frequent operations -> whether a rule may run with these arguments
    torch.sqrt: lambda args: sys._getframe(2).f_globals is _masked,
    Tensor.view: lambda args: isinstance(args[-1], torch.dtype),
    **dict.fromkeys([torch.unbind, Tensor.unbind, torch.select, Tensor.select], lambda args: args[0].is_nested),
}


def _sqrt(input: Tensor) -> Tensor:
    """Compute `torch.sqrt`; in `torch.masked.std`, which no mode sees, its derivative at 0 is that of a norm: 0."""
    if sys._getframe(2).f_globals is not _masked or not is_differentiated(input):
        return torch.sqrt(input)
    zero = input == 0
    return torch.where(zero, 0.0, torch.sqrt(torch.where(zero, 1.0, input)))


_WITH_DERIVATIVE = frozenset({_special.i0, _special.i1, _special.i0e, _special.i1e})
_ONCE_RIGHT = Where.IN_TRANSFORM  # torch's first gradient is right, and faster

_MAKE_SPARSE = [
    Tensor.to_sparse,
    Tensor.to_sparse_csr,
    Tensor.to_sparse_csc,
    Tensor.to_sparse_bsr,
    Tensor.to_sparse_bsc,
    torch.sparse_coo_tensor,
    torch.sparse_compressed_tensor,
    torch.sparse_csr_tensor,
    torch.sparse_csc_tensor,
    torch.sparse_bsr_tensor,
    torch.sparse_bsc_tensor,
]


def _no_sparse_in_trace(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Refuse to make a sparse tensor of a tensor without numbers, which ends the process in some versions of torch."""
    if any(isinstance(innermost(leaf), FakeTensor) for leaf in (*args, *kwargs.values()) if isinstance(leaf, Tensor)):
        raise RuntimeError("a program cannot use the 'Sparse' backend")
    return args, kwargs


OVERRIDES = (
    Override([torch.sqrt], Where.ALWAYS, _sqrt),
    Override(_MAKE_SPARSE, Where.INTERCEPTED, _no_sparse_in_trace),
    *_rows(formulas.prod, torch.prod, Tensor.prod),
    *_rows(formulas.cumprod, torch.cumprod, Tensor.cumprod, where=_ONCE_RIGHT),
    *_rows(_in_place(formulas.cumprod), Tensor.cumprod_, where=_ONCE_RIGHT),
    *_rows(formulas.logcumsumexp, torch.logcumsumexp, Tensor.logcumsumexp),
    *_rows(formulas.logaddexp, torch.logaddexp, Tensor.logaddexp, where=_ONCE_RIGHT),
    *_rows(formulas.logaddexp2, torch.logaddexp2, Tensor.logaddexp2, where=_ONCE_RIGHT),
    *_rows(formulas.logsigmoid, F.logsigmoid, where=Where.FORWARD_MODE),
    *_rows(formulas.multilabel_soft_margin_loss, F.multilabel_soft_margin_loss, where=Where.FORWARD_MODE),
    *_rows(formulas.sinc, torch.sinc, _special.sinc, Tensor.sinc, where=_ONCE_RIGHT),
    *_rows(_in_place(formulas.sinc), Tensor.sinc_, where=_ONCE_RIGHT),
    *_rows(formulas.pow, torch.pow, Tensor.pow, Tensor.__pow__, where=_ONCE_RIGHT, choose=_if_exponent_is_tensor),
    *_rows(lambda self, other: formulas.pow(other, self), Tensor.__rpow__, where=_ONCE_RIGHT),
    *_rows(_in_place(formulas.pow), Tensor.pow_, Tensor.__ipow__, where=_ONCE_RIGHT, choose=_if_exponent_is_tensor),
    *_rows(formulas.float_power, torch.float_power, Tensor.float_power, where=_ONCE_RIGHT),
    *_rows(formulas.atan2, torch.atan2, torch.arctan2, Tensor.atan2, Tensor.arctan2),
    *_rows(formulas.xlogy, torch.xlogy, _special.xlogy, Tensor.xlogy),
    *_rows(formulas.xlog1py, _special.xlog1py),
    *_rows(formulas.copysign, torch.copysign, Tensor.copysign, where=_ONCE_RIGHT),
    *_rows(formulas.vector_norm, torch.linalg.vector_norm, choose=_if_followed),
    *_rows(formulas.linalg_norm, torch.linalg.norm, choose=_if_followed),
    *_rows(_linalg_norm, torch.linalg.norm, where=_ONCE_RIGHT, choose=_if_followed),
    *_rows(formulas.norm, torch.norm, Tensor.norm, choose=_if_followed),
    *_rows(formulas.dist, torch.dist, Tensor.dist, choose=_if_followed),
    Override([torch.linalg.matrix_norm], Where.ALWAYS, _matrix_norm),
    Override([torch.linalg.matrix_norm], _ONCE_RIGHT, _second_matrix_norm),
    *_rows(formulas.singular_values, torch.linalg.svdvals, where=_ONCE_RIGHT, choose=_second_of_matrix),
    *_rows(formulas.condition_number, torch.linalg.cond, where=_ONCE_RIGHT, choose=_second_of_matrix),
    *_rows(formulas.singular_values, torch.linalg.svd, torch.svd, Tensor.svd, where=_ONCE_RIGHT, choose=_svd),
    *_rows(formulas.frobenius_norm, torch.frobenius_norm, choose=_if_followed),
    *_rows(formulas.pairwise_distance, F.pairwise_distance, choose=_if_followed),
    *_rows(formulas.triplet_margin_loss, F.triplet_margin_loss),
    *_rows(formulas.cdist, torch.cdist),
    *_rows(formulas.pdist, F.pdist),
    Override([F.normalize], Where.ALWAYS, _normalize),
    *_rows(formulas.hypot, torch.hypot, Tensor.hypot),
    *_rows(_in_place(formulas.hypot), Tensor.hypot_),
    *_rows(formulas.renorm, torch.renorm, Tensor.renorm),
    *_rows(_in_place(formulas.renorm), Tensor.renorm_),
    *_rows(
        formulas.abs,
        torch.abs,
        torch.absolute,
        Tensor.abs,
        Tensor.absolute,
        where=_ONCE_RIGHT,
        choose=_if_complex,
    ),
    *_rows(formulas.angle, torch.angle, Tensor.angle, where=_ONCE_RIGHT, choose=_if_complex),
    *_rows(formulas.sgn, torch.sgn, Tensor.sgn, where=_ONCE_RIGHT, choose=_if_complex),
    *_rows(formulas.cosine_similarity, F.cosine_similarity, choose=_if_followed),
    *_rows(formulas.standard_deviation, torch.std, Tensor.std, choose=_if_followed),
    *_rows(formulas.std_mean, torch.std_mean, choose=_if_followed),
    *_rows(formulas.vander, torch.linalg.vander, where=_ONCE_RIGHT),
    *_rows(
        lambda x, *count, increasing=False, **kw: formulas.vander(x, *count, increasing=increasing, **kw), torch.vander
    ),
    *_rows(formulas.embedding, F.embedding, where=Where.FORWARD_MODE),
    *_rows(formulas.spherical_bessel_j0, _special.spherical_bessel_j0),
    *(
        row
        for operation, rule in formulas.BESSEL.items()
        for row in _rows(rule, operation, where=_ONCE_RIGHT if operation in _WITH_DERIVATIVE else Where.ALWAYS)
    ),
    *_rows(formulas.BESSEL[_special.i0], torch.i0, Tensor.i0, where=_ONCE_RIGHT),
    *_rows(_in_place(formulas.BESSEL[_special.i0]), Tensor.i0_, where=_ONCE_RIGHT),
    *(row for operation, rule in formulas.POLYNOMIALS.items() for row in _rows(rule, operation)),
    *_rows(formulas.zeta, _special.zeta),
    *_rows(formulas.igamma, torch.igamma, _special.gammainc, Tensor.igamma),
    *_rows(formulas.igammac, torch.igammac, _special.gammaincc, Tensor.igammac),
    *_rows(_in_place(formulas.igamma), Tensor.igamma_),
    *_rows(_in_place(formulas.igammac), Tensor.igammac_),
    *_rows(formulas.normal, torch.normal),
    Override([torch.linspace], Where.ALWAYS, formulas.linspace),
    Override([torch.logspace], Where.ALWAYS, formulas.logspace),
    *(Override([operation], Where.INTERCEPTED, refuse_conversion(operation)) for operation in CONVERSIONS),
    *(Override([operation], Where.ALWAYS, rule) for operation, rule in NEW_TENSORS.items()),
    Override([Tensor.view], Where.ALWAYS, reinterpreted(Tensor.view)),
    Override([torch.view_copy], Where.ALWAYS, reinterpreted(torch.view_copy, copies=True)),
    Override([set_grad_enabled], Where.INTERCEPTED, set_forward_mode),
)
