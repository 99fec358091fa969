"""Linear solvers for implicit gradients."""

from .cg import solve_cg
from .inv import solve_inv
from .normal_cg import solve_normal_cg

__all__ = ["solve_cg", "solve_inv", "solve_normal_cg"]
