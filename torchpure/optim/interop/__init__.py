"""torch.optim: its optimizers as pure functions, its states as ours and back."""

from ._lift import LiftState, lift
from ._torch_state import from_torch, to_torch

__all__ = ["LiftState", "from_torch", "lift", "to_torch"]
