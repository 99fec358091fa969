"""Tell which calls of torch draw from the global generator."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchpure._torch import (
    OpOverload,
    OpOverloadPacket,
    rrelu_with_noise,
    rrelu_with_noise_,
    sample_dirichlet,
    standard_gamma,
)
from torchpure.transforms.purity import operator_draws

ALWAYS_DRAW = {
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.rand_like, torch.randn_like, torch.randint_like,
    torch.bernoulli, torch.multinomial, torch.normal, torch.poisson, torch.binomial,
    standard_gamma, sample_dirichlet,
    Tensor.bernoulli, Tensor.multinomial, Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_,
    Tensor.log_normal_, Tensor.normal_, Tensor.random_, Tensor.uniform_,
    nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_, F.gumbel_softmax,
}  # fmt: skip

_Argument = tuple[int, str, Any]  # an argument's position, name and default
_PROBABILITY, _TRAIN = (1, "p", 0.5), (2, "train", False)
DRAW_IF_ALL_TRUE: dict[Any, tuple[_Argument, ...]] = {  # function -> it draws if all these arguments are true
    F.dropout: (_PROBABILITY, (2, "training", True)),
    F.dropout1d: (_PROBABILITY, (2, "training", True)),
    F.dropout2d: (_PROBABILITY, (2, "training", True)),
    F.dropout3d: (_PROBABILITY, (2, "training", True)),
    F.alpha_dropout: (_PROBABILITY, (2, "training", False)),
    F.feature_alpha_dropout: (_PROBABILITY, (2, "training", False)),
    torch.dropout: (_PROBABILITY, _TRAIN),
    torch.dropout_: (_PROBABILITY, _TRAIN),
    torch.native_dropout: (_PROBABILITY, (2, "train", True)),
    torch.alpha_dropout: (_PROBABILITY, _TRAIN),
    torch.alpha_dropout_: (_PROBABILITY, _TRAIN),
    torch.feature_dropout: (_PROBABILITY, _TRAIN),
    torch.feature_dropout_: (_PROBABILITY, _TRAIN),
    torch.feature_alpha_dropout: (_PROBABILITY, _TRAIN),
    torch.feature_alpha_dropout_: (_PROBABILITY, _TRAIN),
    F.rrelu: ((3, "training", False),),
    torch.rrelu: ((3, "training", False),),
    torch.rrelu_: ((3, "training", False),),
    rrelu_with_noise: ((4, "training", False),),
    rrelu_with_noise_: ((4, "training", False),),
    F.scaled_dot_product_attention: ((4, "dropout_p", 0.0),),
    F.multi_head_attention_forward: ((10, "dropout_p", 0.0), (13, "training", True)),
}
FRACTIONAL_POOLS = {  # they draw unless `_random_samples` is given
    F.fractional_max_pool2d,
    F.fractional_max_pool3d,
    F.fractional_max_pool2d_with_indices,
    F.fractional_max_pool3d_with_indices,
}
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def draws(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a torch function, called with these arguments, draws from the global generator."""
    if kwargs.get("generator") is not None:
        return False  # made and seeded in this call: a module that holds a generator is refused earlier
    if isinstance(func, OpOverload | OpOverloadPacket):
        return _operator_draws(func, args, kwargs)
    if func in DRAW_IF_ALL_TRUE:
        return all(_argument_value(argument, args, kwargs) for argument in DRAW_IF_ALL_TRUE[func])
    if func in FRACTIONAL_POOLS:
        return _argument_value((5, "_random_samples", None), args, kwargs) is None
    if getattr(func, "__name__", "") in _RECURRENT and len(args) == 9:
        packed = isinstance(args[3], list | tuple)  # a PackedSequence: then the later arguments move by one place
        return all(args[6:8] if packed else args[5:7])
    return func in ALWAYS_DRAW


def _argument_value(argument: _Argument, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    position, name, default = argument
    return kwargs.get(name, args[position] if len(args) > position else default)


def _operator_draws(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an operator draws; torch itself tags operators that may draw."""
    if isinstance(operator, OpOverloadPacket):
        return any(operator_draws(getattr(operator, name), args, kwargs) for name in operator.overloads())
    return operator_draws(operator, args, kwargs)
