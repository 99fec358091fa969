"""Training runs that are differentiated: optimizer steps as one differentiable loop."""

from ._unroll import Unrolled, unroll

__all__ = ["Unrolled", "unroll"]
