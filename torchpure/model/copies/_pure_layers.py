"""Pure forwards for the torch layers whose own forward is not pure.

A batch norm with `momentum=None` turns its count into a Python number, which no transform allows. An embedding with
`max_norm` changes its weight in place. In a private copy such a layer gets a forward from this file.

A transformer encoder in eval mode gives zeros at padded positions if no parameter requires grad, and other values if
one does. A private copy always gives the latter: the value does not depend on what is differentiated.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchpure._torch import BatchNorm
from torchpure._types import State


def purify_layers(module: nn.Module) -> nn.Module:
    """Replace the impure forwards in a private copy; return the copy."""
    for sub in module.modules():
        forward = _pure_forward(sub)
        if forward is not None:
            sub.forward = MethodType(forward, sub)
        if isinstance(sub, nn.TransformerEncoder):
            setattr(sub, "use_nested_tensor", False)  # noqa: B010 an attribute of any type
    return module


class WithBuffers(nn.Module):
    """A module that returns its buffers too: a call under torch.compile reads them there."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, State]:
        """Call the module and return its buffers before functional_call takes the given values out."""
        output = self.module(*inputs, **options)
        return output, dict(self.module.named_buffers())


def has_impure_layers(module: nn.Module) -> bool:
    """Return whether a layer needs another forward.

    >>> has_impure_layers(nn.BatchNorm1d(2)), has_impure_layers(nn.BatchNorm1d(2, momentum=None))
    (False, True)
    """
    return any(_pure_forward(sub) is not None or _uses_nested_tensors(sub) for sub in module.modules())


def _uses_nested_tensors(module: nn.Module) -> bool:
    return isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor


def _pure_forward(module: nn.Module) -> Callable[..., Tensor] | None:
    """Return the pure forward for a layer; None if its forward is pure or not torch's own."""
    if "forward" in vars(module):
        return None
    if isinstance(module, BatchNorm) and module.momentum is None and module.running_mean is not None:
        return _cumulative_batch_norm if type(module).forward in _BATCH_NORM_FORWARDS else None
    if getattr(module, "max_norm", None) is not None:
        return _MAX_NORM_FORWARDS.get(type(module).forward)
    return None


def _cumulative_batch_norm(self: Any, input: Tensor) -> Tensor:
    if not self.training:
        return type(self).forward(self, input)
    self._check_input_dim(input)
    self.num_batches_tracked = self.num_batches_tracked + 1
    weight = 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)
    reduced_dims = [dim for dim in range(input.ndim) if dim != 1]
    var, mean = torch.var_mean(input.detach().to(self.running_mean.dtype), reduced_dims)
    self.running_mean = self.running_mean + weight * (mean - self.running_mean)
    self.running_var = self.running_var + weight * (var - self.running_var)
    return F.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)


def _max_norm_embedding(self: Any, input: Tensor) -> Tensor:
    weight = _renormalised(self, input)
    return F.embedding(input, weight, self.padding_idx, None, 2.0, self.scale_grad_by_freq, self.sparse)


def _max_norm_embedding_bag(
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
    """Scale used rows down to `max_norm`; as in torch, the gradient is that of the scaled weight."""
    weight = self.weight
    detached = weight.detach()
    rows = input.reshape(-1).long()
    used = torch.zeros(detached.shape[0], device=detached.device).index_add(
        0, rows, torch.ones_like(rows, dtype=torch.float)
    )
    norms = torch.linalg.vector_norm(detached, self.norm_type, dim=1)
    shrink = self.max_norm / (norms + 1e-7)  # torch's own guard against a norm of zero
    scale = torch.where((used > 0) & (norms > self.max_norm), shrink, torch.ones_like(norms))
    return detached * scale.unsqueeze(1) + (weight - detached)


_BATCH_NORM_FORWARDS = {BatchNorm.forward, nn.SyncBatchNorm.forward}
_MAX_NORM_FORWARDS = {nn.Embedding.forward: _max_norm_embedding, nn.EmbeddingBag.forward: _max_norm_embedding_bag}
