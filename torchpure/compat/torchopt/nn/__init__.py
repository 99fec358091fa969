"""Modules whose gradients are implicit or estimated, and modules with other tensors."""

from torchpure.compat.torchopt.diff.implicit.nn import ImplicitMetaGradientModule
from torchpure.compat.torchopt.diff.zero_order.nn import ZeroOrderGradientModule

from .module import MetaGradientModule
from .stateless import reparameterize, reparametrize, swap_state

__all__ = [
    "ImplicitMetaGradientModule",
    "MetaGradientModule",
    "ZeroOrderGradientModule",
    "reparameterize",
    "reparametrize",
    "swap_state",
]
