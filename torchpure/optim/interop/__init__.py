"""Use optimizers of torch.optim as pure functions, and convert states from and to torch.optim."""

from ._lift import LiftState, lift
from ._torch_load import STATE_TYPES
from ._torch_state import from_torch, to_torch

__all__ = ["STATE_TYPES", "LiftState", "from_torch", "lift", "to_torch"]
