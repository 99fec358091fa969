"""The exponential moving average of parameters (Polyak and Juditsky 1992; debiased as in Kingma and Ba 2015)."""

from typing import Any, NamedTuple

from torch import Tensor

from torchpure import tree
from torchpure._types import Params, Step
from torchpure.optim.core import (
    bias_correction,
    check_unit_interval,
    ema_update,
    init_moments,
    init_step_count,
    is_differentiable,
)

from ._callback import Callback, Observer, StepValues, copied
from ._progress import Progress


class ParameterEmaState(NamedTuple):
    """State of `parameter_ema`."""

    params: Params  # the debiased average after the last report; at the start the parameters themselves


class _RunningEma(NamedTuple):
    step: Step  # float64, shape ()
    ema: Params  # running mean without bias correction


def parameter_ema(decay: float) -> Callback[ParameterEmaState]:
    """Average the parameters after each step, inside the compiled loop: m ← decay m + (1 − decay) p.

    The state holds m / (1 − decayᵗ), which after one step is p itself. Parameters that are not trained are not
    averaged.
    Law: the average does not depend on `every`.

    Raises:
        ValueError: `decay` is not in [0, 1).

    >>> import torch, torchpure as tp
    >>> tp.fit(lambda p, x: (p - x) ** 2, [(torch.tensor(1.0),)], params=torch.tensor(0.0), steps=2,
    ...        optimizer=tp.optim.sgd(0.25), callback=parameter_ema(0.5)).callback_state.params  # (½ · ½ + ¾) / 1½
    tensor(0.6667)
    """
    check_unit_interval("parameter_ema", decay=decay)

    def start(params: Params) -> _RunningEma:
        return _RunningEma(init_step_count(params), init_moments(params))

    def step(state: _RunningEma, values: StepValues) -> _RunningEma:
        return _RunningEma(state.step + 1, tree.map(lambda p, m: _averaged(p, m, decay), values.params, state.ema))

    def update(state: ParameterEmaState, progress: Progress) -> tuple[ParameterEmaState, bool]:
        running = progress.observed
        correction = bias_correction(decay, running.step)
        mean = tree.map(lambda m: None if m is None else (m / correction), running.ema)
        return ParameterEmaState(_filled(mean, progress.params)), False

    return Callback(lambda params: ParameterEmaState(copied(params)), update, Observer(start, step))


def _averaged(p: Any, m: Any, decay: float) -> Any:
    return ema_update(m, p.to(m.dtype), decay) if is_differentiable(p) else m


def _filled(mean: Params, params: Params) -> Params:
    """Return the average in the dtypes of the parameters, with those that are not trained."""
    if isinstance(params, dict) and isinstance(mean, dict) and mean.keys() != params.keys():
        mean = {name: mean.get(name) for name in params}
    leaves, structure = tree.flatten(params)
    means = tree.align(structure, params, mean, "parameter_ema")
    return tree.unflatten(structure, [_like(p, m) for p, m in zip(leaves, means, strict=True)])


def _like(p: Any, m: Tensor | None) -> Any:
    return p if m is None else m.to(p.dtype)
