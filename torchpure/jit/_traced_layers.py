"""Recurrent layers in traces: one loop over the steps, where torch's kernel would be traced step by step.

torch computes an LSTM of single precision by one kernel of oneDNN; a program calls that kernel, and the kernel of its
gradient. torch computes other layers step by step. A program has one `scan` for a layer, behind a product of all inputs
with the weights.

Law: a layer in a program computes what the layer computes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from torchpure.transforms.control_flow import scan
from torchpure.transforms.overrides import RECURRENT_CELLS, in_transform, one_hot, project_input

State = tuple[Tensor, ...]
_LSTM = 2  # the mode of torch's kernels
_NAMES = ("input", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional", "batch_first")
_aten = torch.ops.aten


class TracedLayers(TorchFunctionMode):
    """Replaces recurrent layers by loops, `one_hot` by a scatter, and lists of lengths in `ctc_loss` by tensors.

    It is on while `jit` runs a function to trace it. It has no state, and costs a microsecond an operation then.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or the loop of a layer."""
        kwargs = kwargs or {}
        if func in {torch.ctc_loss, functional.ctc_loss}:
            return func(*[_as_lengths(arg) for arg in args], **{key: _as_lengths(arg) for key, arg in kwargs.items()})
        if func is functional.one_hot:
            return one_hot(*args, **kwargs)
        cell = RECURRENT_CELLS.get(func)
        layer = None if cell is None else _layer(args, kwargs)
        if cell is None or layer is None:
            return func(*args, **kwargs)
        if func is not torch.lstm or not _has_fused_kernel(layer):
            return _run(layer, partial(_loop, cell))
        if in_transform() or any(leaf.requires_grad for leaf in (layer.data, *layer.hidden, *layer.weights)):
            return _run(layer, _fused)
        return func(*args, **kwargs)


def _as_lengths(arg: Any) -> Any:
    """Return a list of lengths as a tensor: torch makes one itself, which it cannot do in a trace."""
    return torch.tensor(arg) if isinstance(arg, list | tuple) else arg


class _Layer(NamedTuple):
    data: Tensor  # (step, batch, feature)
    hidden: State  # each: (layer and direction, batch, feature)
    weights: list[Tensor]
    num: int
    both: bool  # directions
    batch_first: bool


def _layer(args: Any, kwargs: Any) -> _Layer | None:
    """Return the arguments of a layer; None if torch must run it: packed or empty sequences, draws, and errors."""
    given = dict(zip(_NAMES, args, strict=False)) | kwargs
    if not isinstance(given.get("params"), list | tuple) or len(given) < len(_NAMES):
        return None
    data, num, hidden = given["input"], given["num_layers"], given["hx"]
    if data.ndim != 3 or 0 in data.shape or (given["dropout"] and given["train"] and num > 1):
        return None
    hidden = (hidden,) if isinstance(hidden, Tensor) else tuple(hidden)
    both, batch_first = given["bidirectional"], given["batch_first"]
    data = data.transpose(0, 1) if batch_first else data
    fits = all(part.ndim == 3 and part.shape[:2] == (num * (1 + both), data.shape[1]) for part in hidden)
    return _Layer(data, hidden, list(given["params"]), num, both, batch_first) if fits else None


def _run(layer: _Layer, direction: Callable[[Tensor, State, list[Tensor], bool], tuple[Tensor, State]]) -> Any:
    """Run the layers one after another, each in its directions."""
    data, finals = layer.data, list[State]()
    sides = 1 + layer.both
    size = len(layer.weights) // (layer.num * sides)
    for number in range(layer.num * sides)[::sides]:
        outputs = []
        for side in range(number, number + sides):
            weights = layer.weights[side * size : (side + 1) * size]
            output, final = direction(data, tuple(part[side] for part in layer.hidden), weights, side != number)
            outputs.append(output)
            finals.append(final)
        data = torch.cat(outputs, -1) if layer.both else outputs[0]
    output = data.transpose(0, 1) if layer.batch_first else data
    return (output, *(torch.stack(parts) for parts in zip(*finals, strict=True)))


def _loop(cell: Any, data: Tensor, state: State, weights: list[Tensor], backwards: bool) -> tuple[Tensor, State]:
    def step(now: State, projected: Tensor) -> tuple[State, Tensor]:
        after = cell(projected, now, weights)
        return after, after[0]

    final, outputs = scan(step, state, project_input(data, weights), reverse=backwards)
    return outputs, final


def _has_fused_kernel(layer: _Layer) -> bool:
    """Tell whether torch computes an LSTM by the kernel of oneDNN."""
    tensors = (layer.data, *layer.hidden, *layer.weights)
    return (
        torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and all(leaf.dtype is torch.float32 and leaf.device.type == "cpu" for leaf in tensors)
        and layer.hidden[0].shape == layer.hidden[1].shape  # no projection
    )


def _fused(data: Tensor, state: State, weights: list[Tensor], backwards: bool) -> tuple[Tensor, State]:
    given = weights if len(weights) == 4 else [*weights, *[weights[0].new_zeros(len(weights[0]))] * 2]
    output, *final, _ = _FusedLstm.apply(data.contiguous(), *given, *state, backwards)
    return output, tuple(final)


class _FusedLstm(torch.autograd.Function):
    """One direction of an LSTM. Its first derivative is a kernel too."""

    @staticmethod
    def forward(*given: Any) -> Any:
        *tensors, backwards = given
        size = tensors[-1].shape[-1]
        return _aten.mkldnn_rnn_layer(*tensors, backwards, [], _LSTM, size, 1, True, False, False, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.backwards = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[-1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        *tensors, output, hidden, cell, workspace = ctx.saved_tensors
        size = hidden.shape[-1]
        options = (ctx.backwards, _LSTM, size, 1, True, True, False, [], False)
        found = _aten.mkldnn_rnn_layer_backward(*tensors, output, hidden, cell, *gradients[:3], *options, workspace)
        return (*found, None)
