"""What silently becomes a constant in torch: numbers read from tensors, tensors read as numbers, `no_grad` forwards."""

from ._conversions import CONVERSIONS, NEW_TENSORS, refuse_conversion
from ._grad_mode import set_forward_mode
from ._numbers import BY_KEYWORD, NUMBERS, with_tensors_as_numbers
from ._reinterpretation import reinterpreted
from ._retry_with_numbers import with_numbers

__all__ = [
    "BY_KEYWORD",
    "CONVERSIONS",
    "NEW_TENSORS",
    "NUMBERS",
    "refuse_conversion",
    "reinterpreted",
    "set_forward_mode",
    "with_numbers",
    "with_tensors_as_numbers",
]
