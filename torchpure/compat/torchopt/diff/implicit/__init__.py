"""Gradients by the implicit function theorem."""

from . import nn
from .decorator import custom_root
from .nn import ImplicitMetaGradientModule

__all__ = ["ImplicitMetaGradientModule", "custom_root", "nn"]
