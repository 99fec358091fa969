"""Solvers of linear systems whose unknowns are trees."""

from .cg import cg
from .ns import ns, ns_inv

__all__ = ["cg", "ns", "ns_inv"]
