"""The functions and constants of expressions; each function is a torch operation on float64."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus


class Function(NamedTuple):
    """An operation that an expression may call."""

    apply: Callable[..., Tensor]
    arity: int


_UNARY_NAMES = (
    "sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square "
    "abs sign floor ceil round trunc frac reciprocal sigmoid logit relu erf erfc erfinv lgamma digamma sinc"
)
_BINARY_NAMES = "minimum maximum atan2 hypot fmod heaviside"

FUNCTIONS: dict[str, Function] = (
    {name: Function(getattr(torch, name), 1) for name in _UNARY_NAMES.split()}
    | {"softplus": Function(softplus, 1)}
    | {name: Function(getattr(torch, name), 2) for name in _BINARY_NAMES.split()}
    | {"where": Function(torch.where, 3)}
)
CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}

# Other names of the functions above, too different in spelling for a close match.
OTHER_NAMES = {
    "ln": "log",
    "log_e": "log",
    "max": "maximum",
    "min": "minimum",
    "pow": "**",
    "power": "**",
    "mod": "%",
    "if": "where",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arctan2": "atan2",
    "fabs": "abs",
    "step": "heaviside",
}
