"""The norms of the gradients, by parameter."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import Params
from torchpure.optim.core import init_scalar

from ._callback import Callback, Observer, StepValues
from ._progress import Progress


class GradientNormsState(NamedTuple):
    """State of `gradient_norms`."""

    step: Tensor  # of the last report; int64, shape ()
    norms: dict[str, Tensor]  # Euclidean, by the path of the parameter; each of shape ()


def gradient_norms() -> Callback[GradientNormsState]:
    """Store the Euclidean norm of the gradient of each trained parameter, at the step that is reported.

    The norms are computed at each step, inside the compiled loop, and those of the last step are kept.

    >>> import torch, torchpure as tp
    >>> result = tp.fit(lambda p, x: (p["w"] * x).sum(), [(torch.tensor([3.0, 4.0]),)], params={"w": torch.zeros(2)},
    ...                 optimizer=tp.optim.sgd(0.25), steps=2, callback=gradient_norms())
    >>> result.callback_state.norms
    {'w': tensor(5.)}
    """

    def start(params: Params) -> dict[str, Tensor]:
        return _norms(
            params, tree.map(lambda leaf: torch.zeros_like(leaf) if isinstance(leaf, Tensor) else None, params)
        )

    def step(state: dict[str, Tensor], values: StepValues) -> dict[str, Tensor]:
        return {path: norm.to(state[path].dtype) for path, norm in _norms(values.params, values.grads).items()}

    def update(state: GradientNormsState, progress: Progress) -> tuple[GradientNormsState, bool]:
        return GradientNormsState(torch.full_like(state.step, progress.step), progress.observed), False

    return Callback(
        lambda params: GradientNormsState(init_scalar(0, params, torch.int64), start(params)),
        update,
        Observer(start, step),
    )


def _norms(params: Params, grads: Any) -> dict[str, Tensor]:
    structure = tree.structure(params)
    leaves = tree.align(structure, params, grads, "gradient_norms")
    pairs = zip(tree.paths(params), leaves, strict=True)
    return {path: torch.linalg.vector_norm(leaf) for path, leaf in pairs if _has_norm(leaf)}


def _has_norm(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
