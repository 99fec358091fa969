"""Layers of torch whose forward cannot be a pure function as it is written, and what stands in for it.

A cumulative batch norm makes a Python number of its count, which no transform allows; an embedding with `max_norm`
changes its weight in place. On the private copy that a call runs on, such a layer gets a forward from here.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchpure._torch import BatchNorm
from torchpure._types import State


def adapt(module: nn.Module) -> nn.Module:
    """Give the layers of a private copy that need one another forward; return it."""
    for sub in module.modules():
        forward = _forward(sub)
        if forward is not None:
            sub.forward = MethodType(forward, sub)
    return module


class WithState(nn.Module):
    """A module that returns its buffers too, as a call that torch.compile traces needs them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, State]:
        """Call the module, and list its buffers while the given values are still in their places."""
        output = self.module(*inputs, **options)
        return output, dict(self.module.named_buffers())


def needs_adapting(module: nn.Module) -> bool:
    """Tell whether a layer needs another forward.

    >>> needs_adapting(nn.BatchNorm1d(2)), needs_adapting(nn.BatchNorm1d(2, momentum=None))
    (False, True)
    """
    return any(_forward(sub) is not None for sub in module.modules())


def _forward(module: nn.Module) -> Callable[..., Tensor] | None:
    """Return what stands in for a layer's forward, where that is torch's own."""
    if "forward" in vars(module):
        return None
    if isinstance(module, BatchNorm) and module.momentum is None and module.running_mean is not None:
        return _cumulative_norm if type(module).forward in _NORMS else None
    if getattr(module, "max_norm", None) is not None:
        return _LIMITED.get(type(module).forward)
    return None


def _cumulative_norm(self: Any, input: Tensor) -> Tensor:
    if not self.training:
        return type(self).forward(self, input)
    self._check_input_dim(input)
    self.num_batches_tracked = self.num_batches_tracked + 1
    share = 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)
    rest = [dim for dim in range(input.ndim) if dim != 1]
    var, mean = torch.var_mean(input.detach().to(self.running_mean.dtype), rest)
    self.running_mean = self.running_mean + share * (mean - self.running_mean)
    self.running_var = self.running_var + share * (var - self.running_var)
    return F.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)


def _limited_embedding(self: Any, input: Tensor) -> Tensor:
    weight = _renormalised(self, input)
    return F.embedding(input, weight, self.padding_idx, None, 2.0, self.scale_grad_by_freq, self.sparse)


def _limited_bag(
    self: Any, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
) -> Tensor:
    return F.embedding_bag(
        input,
        _renormalised(self, input),
        offsets,
        scale_grad_by_freq=self.scale_grad_by_freq,
        mode=self.mode,
        sparse=self.sparse,
        per_sample_weights=per_sample_weights,
        include_last_offset=self.include_last_offset,
        padding_idx=self.padding_idx,
    )


def _renormalised(self: Any, input: Tensor) -> Tensor:
    """Shorten the rows that are used and too long; as in torch, the gradient is that of the shortened weight."""
    weight = self.weight
    fixed = weight.detach()
    rows = input.reshape(-1).long()
    used = torch.zeros(fixed.shape[0], device=fixed.device).index_add(0, rows, torch.ones_like(rows, dtype=torch.float))
    norms = torch.linalg.vector_norm(fixed, self.norm_type, dim=1)
    short = self.max_norm / (norms + 1e-7)  # torch's own guard against a norm of zero
    scale = torch.where((used > 0) & (norms > self.max_norm), short, torch.ones_like(norms))
    return fixed * scale.unsqueeze(1) + (weight - fixed)


_NORMS = {BatchNorm.forward, nn.SyncBatchNorm.forward}
_LIMITED = {nn.Embedding.forward: _limited_embedding, nn.EmbeddingBag.forward: _limited_bag}
