"""Gradients that are estimated from values. The module can be called: it is `zero_order`."""

from . import nn
from ._callable import make_callable
from .decorator import zero_order
from .nn import ZeroOrderGradientModule

__all__ = ["ZeroOrderGradientModule", "make_callable", "nn", "zero_order"]

_module = make_callable(__name__)
