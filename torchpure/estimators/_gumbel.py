"""Gumbel-softmax (Jang, Gu, Poole 2017, arXiv:1611.01144; Maddison, Mnih, Teh 2017, arXiv:1611.00712)."""

import torch
from torch import Tensor

from torchpure import random
from torchpure._types import Key
from torchpure.transforms import stop_gradient

from ._samples import check_positive


def gumbel_softmax(logits: Tensor, temperature: float | Tensor = 1.0, *, key: Key) -> Tensor:
    """Draw a point of the simplex near one of its corners: softmax((logits + Gumbel noise) / temperature).

    The last dimension of `logits` has the classes. The sample is smooth in `logits`. For a low temperature it tends to
    a one-hot sample of softmax(logits); then the variance of the gradient grows.

    Raises:
        TransformError: the temperature is not above 0.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import random
    >>> gumbel_softmax(torch.zeros(4, 3), 0.5, key=random.key(0)).sum(-1).round(decimals=4)
    tensor([1., 1., 1., 1.])
    """
    check_positive("gumbel_softmax", temperature=temperature)
    random.check_key(key, "gumbel_softmax")
    return ((logits + random.gumbel(key, logits.shape, dtype=logits.dtype)) / temperature).softmax(-1)


def gumbel_one_hot(logits: Tensor, temperature: float | Tensor = 1.0, *, key: Key) -> Tensor:
    """Draw an exact one-hot sample of softmax(logits), with the derivatives of `gumbel_softmax`.

    It is the straight-through form: the values are unbiased, the derivatives are not.

    Law: the value is the one-hot argmax of `gumbel_softmax` with the same key.

    Raises:
        TransformError: the temperature is not above 0.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import random
    >>> gumbel_one_hot(torch.tensor([0.0, 50.0]), key=random.key(0))
    tensor([0., 1.])
    """
    check_positive("gumbel_one_hot", temperature=temperature)
    soft = gumbel_softmax(logits, temperature, key=key)
    classes = torch.arange(soft.shape[-1], device=soft.device)
    hard = (classes == soft.argmax(-1, keepdim=True)).to(soft.dtype)
    return hard + (soft - stop_gradient(soft))
