"""Trees (nested containers of tensors): structure, paths, and vector arithmetic."""

from ._algebra import add, cast, dot, lerp, norm, scale, sub, where, zeros_like
from ._backend import Structure, children, flatten, flatten_holes, unflatten
from ._core import LEAF, align, check_same, describe, leaves, map, ordered, paths, structure
from ._plain import plain, untransformed, unwatched
from ._ravel import ravel
from ._registry import register, register_dataclass

__all__ = [
    "LEAF",
    "Structure",
    "add",
    "align",
    "cast",
    "check_same",
    "children",
    "describe",
    "dot",
    "flatten",
    "flatten_holes",
    "leaves",
    "lerp",
    "map",
    "norm",
    "ordered",
    "paths",
    "plain",
    "ravel",
    "register",
    "register_dataclass",
    "scale",
    "structure",
    "sub",
    "unflatten",
    "untransformed",
    "unwatched",
    "where",
    "zeros_like",
]
