"""Nests of tensors: structure, paths, and the arithmetic of vectors."""

from ._algebra import add as add
from ._algebra import cast as cast
from ._algebra import dot as dot
from ._algebra import lerp as lerp
from ._algebra import norm as norm
from ._algebra import scale as scale
from ._algebra import sub as sub
from ._algebra import where as where
from ._algebra import zeros_like as zeros_like
from ._backend import Structure as Structure
from ._backend import children as children
from ._backend import flatten as flatten
from ._backend import flatten_holes as flatten_holes
from ._backend import register_dataclass as register_dataclass
from ._backend import unflatten as unflatten
from ._core import align as align
from ._core import check_same as check_same
from ._core import describe as describe
from ._core import leaves as leaves
from ._core import map as map
from ._core import paths as paths
from ._core import structure as structure
from ._plain import plain as plain
from ._plain import untransformed as untransformed
from ._plain import unwatched as unwatched
from ._ravel import ravel as ravel
