"""Gradient descent with annealed noise (Neelakantan et al. 2015, arXiv:1511.06807, equation 1)."""

from typing import Any

from torchpure._types import Key, ScalarOrSchedule
from torchpure.optim.combinators import chain
from torchpure.optim.core import Number, Optimizer, hint_torch_keywords
from torchpure.optim.transformations import add_noise, scale_by_learning_rate


@hint_torch_keywords
def noisy_sgd(
    learning_rate: ScalarOrSchedule, *, eta: Number = 0.01, gamma: Number = 0.55, key: Key
) -> Optimizer[tuple[Any, ...]]:
    """Step along the gradient with Gaussian noise n: p ← p − learning_rate (g + √(eta / tᵞ) n).

    The key is in the state.

    Raises:
        ValueError: a number is negative.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import random
    >>> opt, params = noisy_sgd(0.1, eta=0.0, key=random.key(0)), torch.tensor([1.0])
    >>> opt.step(torch.tensor([2.0]), opt.init(params), params)[0]
    tensor([0.8000])
    """
    return chain(add_noise(eta, gamma, key), scale_by_learning_rate(learning_rate))
