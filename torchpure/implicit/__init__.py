"""Derivatives of solutions: roots and fixed points are differentiated by the implicit function theorem."""

from ._conjugate_gradient import solve_cg, solve_normal_cg
from ._custom_root import custom_fixed_point, custom_root
from ._gmres import solve_gmres

__all__ = ["custom_fixed_point", "custom_root", "solve_cg", "solve_gmres", "solve_normal_cg"]
