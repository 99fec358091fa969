"""Modules with meta-parameters, and modules with other tensors in the place of their own."""

from ._meta_module import MetaGradientModule, MetaInputsContainer
from ._stateless import reparameterize, reparametrize, swap_state

__all__ = ["MetaGradientModule", "MetaInputsContainer", "reparameterize", "reparametrize", "swap_state"]
