"""One inner loop: a patched copy of a module, and a differentiable optimizer for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .optim import DifferentiableOptimizer, get_diff_optim
from .patch import PatchedModule, monkeypatch


@contextmanager
def innerloop_ctx(
    model: nn.Module,
    opt: torch.optim.Optimizer,
    device: torch.device | None = None,
    copy_initial_weights: bool = True,
    override: dict[str, list[Any]] | None = None,
    track_higher_grads: bool = True,
) -> Iterator[tuple[PatchedModule, DifferentiableOptimizer]]:
    """Yield a patched copy of a module, and an optimizer like `opt` whose steps can be differentiated.

    >>> model = nn.Linear(1, 1)
    >>> opt = torch.optim.SGD(model.parameters(), 0.1)
    >>> with innerloop_ctx(model, opt, copy_initial_weights=False) as (fmodel, diffopt):
    ...     _ = diffopt.step(fmodel(torch.ones(4, 1)).square().mean())
    ...     fmodel(torch.ones(4, 1)).mean().backward()
    >>> model.weight.grad.shape
    torch.Size([1, 1])
    """
    fmodel = monkeypatch(model, device, copy_initial_weights, track_higher_grads)
    yield (
        fmodel,
        get_diff_optim(
            opt,
            list(model.parameters()),
            fmodel=fmodel,
            device=device,
            override=override,
            track_higher_grads=track_higher_grads,
        ),
    )
