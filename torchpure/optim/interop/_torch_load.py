"""Let `torch.load` read states, with its default `weights_only=True`.

torch refuses classes that it does not know, because a class of another library may run code. States are named tuples of
tensors, and run none. This is the only place that adds to torch's list.
"""

from types import ModuleType

import torch

from torchpure.optim import algorithms, combinators, core, line_search, transformations

from ._lift import LiftState


def _named_tuples(package: ModuleType) -> list[type]:
    return [kind for kind in vars(package).values() if isinstance(kind, type) and hasattr(kind, "_fields")]


_PACKAGES = (algorithms, combinators, core, line_search, transformations)
STATE_TYPES = (LiftState, *(kind for package in _PACKAGES for kind in _named_tuples(package)))
torch.serialization.add_safe_globals(list(STATE_TYPES))
