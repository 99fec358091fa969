"""Jacobians that know which coordinates a value depends on: sums of parts, each with coordinates tied to dimensions."""

from ._contract import multiply_parts, pair_products, reduce_part
from ._letters import pointwise_letters, product_letters
from ._parts import Part, dense_rows, expand_part, identity_part, merge_parts, scale_part, split_rows
from ._views import IS_VIEW, view_part

__all__ = [
    "IS_VIEW",
    "Part",
    "dense_rows",
    "expand_part",
    "identity_part",
    "merge_parts",
    "multiply_parts",
    "pair_products",
    "pointwise_letters",
    "product_letters",
    "reduce_part",
    "scale_part",
    "split_rows",
    "view_part",
]
