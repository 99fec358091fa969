"""Operations whose formulas in torch are wrong at zeros, ties and far out, or that have no derivative: see `formulas`.

The rules run where one of the arguments is differentiated. Elsewhere torch's own kernels do.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchpure._torch import set_grad_enabled
from torchpure.transforms import formulas
from torchpure.transforms.constants import CONVERSIONS, NEW_TENSORS, refuse_conversion, set_forward_mode
from torchpure.transforms.engine import is_differentiated

from ._override import Override, Where

Rule = Callable[..., Any]
_special = torch.special


def _if_differentiated(operation: Rule, rule: Rule) -> Rule:
    def run(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values()) if kwargs else args
        follows = any(isinstance(leaf, Tensor) and is_differentiated(leaf) for leaf in given)
        return (rule if follows and kwargs.get("out") is None else operation)(*args, **kwargs)

    return run


def _if_exponent_is_tensor(operation: Rule, rule: Rule) -> Rule:
    """Return a rule of powers: those with a number as exponent are right in torch, and frequent."""
    followed = _if_differentiated(operation, rule)

    def run(*args: Any, **kwargs: Any) -> Any:
        chosen = followed if kwargs or isinstance(args[1], Tensor) else operation
        return chosen(*args, **kwargs)

    return run


def _in_place(rule: Rule) -> Rule:
    return lambda self, *args, **kwargs: self.copy_(rule(self, *args, **kwargs))


def _rows(rule: Rule, *operations: Any, choose: Any = _if_differentiated) -> list[Override]:
    return [Override([operation], Where.ALWAYS, choose(operation, rule)) for operation in operations]


OVERRIDES = (
    *_rows(formulas.prod, torch.prod, Tensor.prod),
    *_rows(formulas.cumprod, torch.cumprod, Tensor.cumprod),
    *_rows(_in_place(formulas.cumprod), Tensor.cumprod_),
    *_rows(formulas.logcumsumexp, torch.logcumsumexp, Tensor.logcumsumexp),
    *_rows(formulas.logaddexp, torch.logaddexp, Tensor.logaddexp),
    *_rows(formulas.logaddexp2, torch.logaddexp2, Tensor.logaddexp2),
    *_rows(formulas.sinc, torch.sinc, _special.sinc, Tensor.sinc),
    *_rows(_in_place(formulas.sinc), Tensor.sinc_),
    *_rows(formulas.pow, torch.pow, Tensor.pow, Tensor.__pow__, choose=_if_exponent_is_tensor),
    *_rows(lambda self, other: formulas.pow(other, self), Tensor.__rpow__),
    *_rows(_in_place(formulas.pow), Tensor.pow_, Tensor.__ipow__, choose=_if_exponent_is_tensor),
    *_rows(formulas.float_power, torch.float_power, Tensor.float_power),
    *_rows(formulas.spherical_bessel_j0, _special.spherical_bessel_j0),
    *(row for operation, rule in formulas.BESSEL.items() for row in _rows(rule, operation)),
    *_rows(formulas.BESSEL[_special.i0], torch.i0, Tensor.i0),
    *_rows(_in_place(formulas.BESSEL[_special.i0]), Tensor.i0_),
    *(row for operation, rule in formulas.POLYNOMIALS.items() for row in _rows(rule, operation)),
    *_rows(formulas.zeta, _special.zeta),
    *_rows(formulas.igamma, torch.igamma, _special.gammainc, Tensor.igamma),
    *_rows(formulas.igammac, torch.igammac, _special.gammaincc, Tensor.igammac),
    *_rows(_in_place(formulas.igamma), Tensor.igamma_),
    *_rows(_in_place(formulas.igammac), Tensor.igammac_),
    Override([torch.linspace], Where.ALWAYS, formulas.linspace),
    Override([torch.logspace], Where.ALWAYS, formulas.logspace),
    *(Override([operation], Where.INTERCEPTED, refuse_conversion(operation)) for operation in CONVERSIONS),
    *(Override([operation], Where.ALWAYS, rule) for operation, rule in NEW_TENSORS.items()),
    Override([set_grad_enabled], Where.INTERCEPTED, set_forward_mode),
)
