"""Functions with custom rules: for derivatives, for batches, for memory."""

from . import _checkpoint as _checkpoint  # answers calls of torch.utils.checkpoint
from ._captures import lift_captures, refuse_captures
from ._custom_jvp import custom_jvp
from ._custom_vjp import custom_vjp
from ._custom_vmap import custom_vmap
from ._remat import recomputation_of, remat, remat_name

__all__ = [
    "custom_jvp",
    "custom_vjp",
    "custom_vmap",
    "lift_captures",
    "recomputation_of",
    "refuse_captures",
    "remat",
    "remat_name",
]
