"""Recurrent layers as loops over their cells: torch's fused layers have no rule for vmap."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._override import Override, Where

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, list[Tensor]], State]  # (projected input, state, weights) -> state, hidden first


def lstm(projected: Tensor, state: State, weights: list[Tensor]) -> State:
    """Step an LSTM (Hochreiter and Schmidhuber 1997), with a projection (Sak et al. 2014, arXiv:1402.1128) if given."""
    hidden, cell = state
    write, keep, new, read = (projected + _project_hidden(hidden, weights)).chunk(4, -1)
    cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
    hidden = read.sigmoid() * cell.tanh()
    return (hidden @ weights[-1].T if len(weights) % 2 else hidden), cell


def gru(projected: Tensor, state: State, weights: list[Tensor]) -> State:
    """Step a gated recurrent unit (Cho et al. 2014, arXiv:1406.1078)."""
    (hidden,) = state
    reset, update, new = projected.chunk(3, -1)
    h_reset, h_update, h_new = _project_hidden(hidden, weights).chunk(3, -1)
    new = torch.tanh(new + (reset + h_reset).sigmoid() * h_new)
    keep = (update + h_update).sigmoid()
    return ((1 - keep) * new + keep * hidden,)


def elman(activation: Callable[[Tensor], Tensor]) -> Cell:
    """Return a simple recurrent cell (Elman 1990): activation(W x + U h)."""

    def step(projected: Tensor, state: State, weights: list[Tensor]) -> State:
        return (activation(projected + _project_hidden(state[0], weights)),)

    return step


def _project_hidden(hidden: Tensor, weights: list[Tensor]) -> Tensor:
    """Apply the hidden weights; the list is (input weight, hidden weight[, input bias, hidden bias][, projection])."""
    result = hidden @ weights[1].T
    return result + weights[3] if len(weights) > 3 else result


def project_input(data: Tensor, weights: list[Tensor]) -> Tensor:
    """Apply the input weights."""
    result = data @ weights[0].T
    return result + weights[2] if len(weights) > 3 else result


def cell_rule(cell: Cell) -> Callable[..., Any]:
    """Return the rule of `torch.lstm_cell`, `gru_cell` and the like."""

    def step(
        input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
    ) -> Any:
        given = [w_ih, w_hh]
        if b_ih is not None or b_hh is not None:
            given += [w_ih.new_zeros(len(w_ih)) if bias is None else bias for bias in (b_ih, b_hh)]
        state = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        result = cell(project_input(input, given), state, given)
        return result[0] if isinstance(hx, Tensor) else result

    return step


def layer_rule(operation: Callable[..., Any], cell: Cell) -> Callable[..., Any]:
    """Return the rule of `torch.lstm`, `gru` and the like.

    Packed sequences come as (data, batch sizes of the steps, hidden, weights, …).
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        names = _LAYER if "batch_first" in kwargs else _PACKED_LAYER
        data, second, *rest = (*args, *(kwargs[name] for name in names[len(args) :] if name in kwargs))
        packed = isinstance(rest[1], list | tuple)
        hidden, weights, _, num, rate, train, both, *tail = rest if packed else (second, *rest)
        if rate and train and num > 1:  # dropout draws: torch does that, or refuses
            return operation(data, second, *rest)
        batch_first = bool(tail and tail[0])
        steps = list(data.split(second.tolist())) if packed else list(data.unbind(1 if batch_first else 0))
        states = list(zip(*((hidden,) if isinstance(hidden, Tensor) else hidden), strict=True))
        size = len(weights) // len(states)
        finals = []
        for number in range(num):
            sides = [number * 2, number * 2 + 1] if both else [number]
            runs = [
                _one_direction(cell, steps, states[side], weights[side * size : (side + 1) * size], side != sides[0])
                for side in sides
            ]
            steps = [torch.cat(parts, -1) for parts in zip(*(outputs for outputs, _ in runs), strict=True)]
            finals += [final for _, final in runs]
        output = torch.cat(steps) if packed else torch.stack(steps, 1 if batch_first else 0)
        return (output, *(torch.stack(parts) for parts in zip(*finals, strict=True)))

    return run


def _one_direction(
    cell: Cell, steps: list[Tensor], state: State, weights: list[Tensor], backwards: bool
) -> tuple[list[Tensor], State]:
    """Run a layer over the steps in one direction; sequences that have ended, or not begun, keep their state."""
    outputs = []
    for step in reversed(steps) if backwards else steps:
        rows = len(step)
        new = cell(project_input(step, weights), tuple(part[:rows] for part in state), weights)
        state = tuple(torch.cat([one, part[rows:]]) for one, part in zip(new, state, strict=True))
        outputs.append(new[0])
    return (outputs[::-1] if backwards else outputs), state


_OPTIONS = ("params", "has_biases", "num_layers", "dropout", "train", "bidirectional")
_LAYER, _PACKED_LAYER = ("input", "hx", *_OPTIONS, "batch_first"), ("data", "batch_sizes", "hx", *_OPTIONS)
_TANH, _RELU = elman(torch.tanh), elman(torch.relu)
RECURRENT_CELLS: dict[Any, Cell] = {torch.lstm: lstm, torch.gru: gru, torch.rnn_tanh: _TANH, torch.rnn_relu: _RELU}
OVERRIDES = (
    *(Override([layer], Where.IN_TRANSFORM, layer_rule(layer, cell)) for layer, cell in RECURRENT_CELLS.items()),
    Override([torch.lstm_cell], Where.IN_TRANSFORM, cell_rule(lstm)),
    Override([torch.gru_cell], Where.IN_TRANSFORM, cell_rule(gru)),
    Override([torch.rnn_tanh_cell], Where.IN_TRANSFORM, cell_rule(_TANH)),
    Override([torch.rnn_relu_cell], Where.IN_TRANSFORM, cell_rule(_RELU)),
)
