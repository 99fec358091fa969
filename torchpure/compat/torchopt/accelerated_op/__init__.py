"""Adam's fused operation, by torchopt's names."""

from ._available import is_available
from .adam_op import AdamOp

__all__ = ["AdamOp", "is_available"]
