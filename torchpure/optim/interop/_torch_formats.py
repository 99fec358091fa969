"""How torch.optim stores the states that this library has too: names of fields, and conversions of entries."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchpure.optim.algorithms import (
    AdadeltaState,
    AdamaxState,
    AdamState,
    AmsgradState,
    AsgdState,
    Factored,
    FactoredState,
    MuonState,
    NadamState,
    RadamState,
    RmsState,
    RpropState,
    RssState,
    SgdState,
)
from torchpure.optim.transformations import TraceState

Entry = dict[str, Any]  # torch's state of one parameter


def _same(entry: Entry, *rest: Any) -> Entry:
    return entry


class TorchFormat(NamedTuple):
    """The names of a state's fields in torch, and how entries are converted in either direction."""

    fields: dict[str, str]  # our field with one value for each parameter -> torch's name
    numbers: Mapping[str, str] = MappingProxyType({})  # our field with one number, which torch has for each parameter
    encode: Callable[[Entry, Entry, Tensor], Entry] = _same  # (entry, options of the group, step) -> torch's entry
    decode: Callable[[Entry], Entry] = _same  # torch's entry -> entry
    counts: bool = True  # whether formulas use the step count, beyond schedules


def _negate_last(entry: Entry, *rest: Any) -> Entry:
    # our state has the last update, torch's the last gradient; only the sign is used
    return entry | {"prev": -entry["prev"]}


def _add_step_sizes(entry: Entry, group: Entry, step: Tensor) -> Entry:
    eta = group["lr"] / (1 + group["lambd"] * group["lr"] * step) ** group["alpha"]
    mu = 1 / (step - group["t0"]).clamp(min=1)
    return entry | {"eta": eta.to(torch.float32), "mu": mu.to(torch.float32)}


def _encode_factored(entry: Entry, *rest: Any) -> Entry:
    square = entry.pop("square")
    if isinstance(square, Factored):
        return entry | {"row_var": square.rows.unsqueeze(-1), "col_var": square.columns.unsqueeze(-2)}
    return entry | {"variance": square}


def _decode_factored(entry: Entry) -> Entry:
    if "row_var" not in entry:
        return entry | ({"square": entry["variance"]} if "variance" in entry else {})
    return entry | {"square": Factored(entry["row_var"].squeeze(-1), entry["col_var"].squeeze(-2))}


TORCH_FORMATS: dict[type, TorchFormat] = {
    AdadeltaState: TorchFormat({"square": "square_avg", "change": "acc_delta"}, counts=False),
    AdamState: TorchFormat({"mean": "exp_avg", "square": "exp_avg_sq"}),
    AdamaxState: TorchFormat({"mean": "exp_avg", "largest": "exp_inf"}),
    AmsgradState: TorchFormat({"mean": "exp_avg", "square": "exp_avg_sq", "largest": "max_exp_avg_sq"}),
    AsgdState: TorchFormat({"average": "ax"}, encode=_add_step_sizes),
    FactoredState: TorchFormat({"square": "square"}, encode=_encode_factored, decode=_decode_factored),
    MuonState: TorchFormat({"mean": "momentum_buffer"}, counts=False),
    NadamState: TorchFormat({"mean": "exp_avg", "square": "exp_avg_sq"}, {"product": "mu_product"}),
    RadamState: TorchFormat({"mean": "exp_avg", "square": "exp_avg_sq"}),
    RmsState: TorchFormat({"mean": "grad_avg", "square": "square_avg"}, counts=False),
    RpropState: TorchFormat(
        {"size": "step_size", "last": "prev"}, encode=_negate_last, decode=_negate_last, counts=False
    ),
    RssState: TorchFormat({"total": "sum"}, counts=False),
    SgdState: TorchFormat({"momentum": "momentum_buffer"}, counts=False),
    TraceState: TorchFormat({"trace": "momentum_buffer"}, counts=False),
}
