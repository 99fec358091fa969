"""Modules whose gradients are estimated."""

from .module import ZeroOrderGradientModule

__all__ = ["ZeroOrderGradientModule"]
