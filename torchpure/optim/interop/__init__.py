"""Use optimizers of torch.optim as pure functions, and convert states from and to torch.optim."""

from ._lift import LiftState as LiftState
from ._lift import lift as lift
from ._torch_state import from_torch as from_torch
from ._torch_state import to_torch as to_torch
