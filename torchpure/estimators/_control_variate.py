"""Control variates: an estimate is corrected by another one whose mean is known (Owen 2013, chapter 8.9)."""

from collections.abc import Callable

from torch import Tensor

from torchpure import random
from torchpure._types import Key, Params, Tree
from torchpure.transforms.calls import check_callable


def control_variate(
    estimate: Callable[..., Tensor],
    control: Callable[..., Tensor],
    expectation: Callable[..., Tensor],
    coefficient: float | Tensor = 1.0,
) -> Callable[..., Tensor]:
    """Return estimate − coefficient (control − expectation): the same mean, and less variance if both vary together.

    `estimate` and `control` take `(params, *args, key=key)` and get the same key; `expectation(params, *args)` is the
    exact mean of `control`. Derivatives are corrected too, in the same way: so the gradient of `expectation` must be
    known, not that of `estimate`. The coefficient must not depend on the draws. For values, the best one is
    cov(estimate, control) / var(control).

    Law: the mean over keys is that of `estimate`, and so are the means of the derivatives.

    Raises:
        TransformError: an argument is not a function.
        TypeError: `key` is not a key.

    >>> import torch
    >>> from torchpure import estimators, grad, random
    >>> shift = lambda mean, z: mean + z
    >>> hard = estimators.pathwise(lambda x: x.sin() + x**2, shift, random.normal, 10)
    >>> easy = estimators.pathwise(lambda x: x**2, shift, random.normal, 10)
    >>> better = control_variate(hard, easy, lambda mean: mean**2 + 1)
    >>> only_the_sine = estimators.pathwise(torch.sin, shift, random.normal, 10)(torch.tensor(1.0), key=random.key(0))
    >>> torch.allclose(better(torch.tensor(1.0), key=random.key(0)), only_the_sine + 2)
    True
    """
    for part in (estimate, control, expectation):
        check_callable("control_variate", part)

    def corrected(params: Params, *args: Tree, key: Key) -> Tensor:
        random.check_key(key, "control_variate")
        error = control(params, *args, key=key) - expectation(params, *args)
        return estimate(params, *args, key=key) - coefficient * error

    return corrected
