"""Gradients across workers: refused."""

from ._refused import refused

__all__ = [
    "DistAutogradContext",
    "backward",
    "context",
    "get_gradients",
    "grad",
    "is_available",
]

DistAutogradContext = refused("distributed.autograd.DistAutogradContext")
backward = refused("distributed.autograd.backward")
context = refused("distributed.autograd.context")
get_gradients = refused("distributed.autograd.get_gradients")
grad = refused("distributed.autograd.grad")


def is_available() -> bool:
    """Return False: gradients do not cross processes here."""
    return False
