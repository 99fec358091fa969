"""A module with other tensors in the place of its own."""

from torchpure.compat.torchopt.modules import reparameterize, reparametrize, swap_state

__all__ = ["reparameterize", "reparametrize", "swap_state"]
