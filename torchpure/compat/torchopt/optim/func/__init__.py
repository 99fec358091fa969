"""The optimizer of parameters that are passed in and returned."""

from .base import FuncOptimizer

__all__ = ["FuncOptimizer"]
