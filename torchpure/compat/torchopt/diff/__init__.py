"""Gradients that are implicit or estimated."""

from . import implicit, zero_order
from .implicit import ImplicitMetaGradientModule
from .zero_order import ZeroOrderGradientModule

__all__ = ["ImplicitMetaGradientModule", "ZeroOrderGradientModule", "implicit", "zero_order"]
