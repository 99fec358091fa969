"""The score function estimator (Williams 1992), with all derivatives (DiCE: Foerster et al. 2018, arXiv:1802.05098).

Baselines: a number, or the mean over the other samples (Kool, van Hoof, Welling 2019).
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from torchpure import random
from torchpure._types import Key, Params, Tree
from torchpure.errors import TransformError
from torchpure.transforms import stop_gradient, vmap
from torchpure.transforms.calls import check_callable

from ._samples import check_num_samples, check_scalar

Baseline = float | Tensor | Literal["leave_one_out"] | None


def score_function(
    fn: Callable[..., Tensor],
    sample: Callable[[Params, Key], Tree],
    log_prob: Callable[[Params, Tree], Tensor],
    num_samples: int = 16,
    *,
    baseline: Baseline = "leave_one_out",
) -> Callable[..., Tensor]:
    """Return `estimate(params, *args, key=key)`: an estimate of E[fn(x, *args)] over x ~ `sample(params, key)`.

    Its derivatives in `params` estimate those of the expectation, to every order: f(x) ∂log p(x). So `fn` and `sample`
    need no derivatives; x may be discrete. `log_prob(params, x)` has shape (). A baseline b makes it (f(x) − b) ∂log
    p(x): the same mean, less variance. "leave_one_out" is the mean of f over the other samples; a number must not
    depend on the samples.

    Law: the mean over keys of `grad(estimate)` is the gradient of the expectation, and that of `estimate` is the
    expectation.

    Raises:
        TransformError: `num_samples` is below 1, or below 2 with "leave_one_out"; a value is not a scalar.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import grad, random
    >>> flip = lambda logit, key: random.bernoulli(key, logit.sigmoid()).float()
    >>> log_prob = lambda logit, x: -torch.nn.functional.softplus((1 - 2 * x) * logit)
    >>> estimate = score_function(lambda x: 4 * x, flip, log_prob, 1000)
    >>> grad(estimate)(torch.tensor(0.0), key=random.key(0)).round(decimals=1)  # 4 p (1 - p)
    tensor(1.)
    """
    for part in (fn, sample, log_prob):
        check_callable("score_function", part)
    leave_one_out = isinstance(baseline, str)
    if leave_one_out and baseline != "leave_one_out":
        raise TransformError(f"score_function: baseline must be a number, None or 'leave_one_out', got {baseline!r}")
    check_num_samples("score_function", num_samples, 2 if leave_one_out else 1)

    def one(params: Params, args: tuple[Tree, ...], key: Key) -> tuple[Tensor, Tensor]:
        x = stop_gradient(sample(params, key))
        value = check_scalar("score_function", "fn", fn(x, *args))
        return value, check_scalar("score_function", "log_prob", log_prob(params, x))

    def estimate(params: Params, *args: Tree, key: Key) -> Tensor:
        random.check_key(key, "score_function")
        values, log_probs = vmap(lambda key: one(params, args, key))(random.split(key, num_samples))
        likelihood_ratio = (log_probs - stop_gradient(log_probs)).exp()  # it is one, with the derivatives of p
        return (values * likelihood_ratio - _baseline(values) * (likelihood_ratio - 1)).mean()

    def _baseline(values: Tensor) -> Tensor | float:
        if not isinstance(baseline, str):
            return 0.0 if baseline is None else baseline
        constants = stop_gradient(values)
        return (constants.sum() - constants) / (num_samples - 1)

    return estimate
