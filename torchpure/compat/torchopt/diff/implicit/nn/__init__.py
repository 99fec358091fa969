"""Modules whose solution has implicit gradients."""

from .module import ImplicitMetaGradientModule

__all__ = ["ImplicitMetaGradientModule"]
