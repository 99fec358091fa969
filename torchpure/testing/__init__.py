"""Checks of the laws that this library states, for its own models, optimizers and transforms and for yours."""

from ._assert import assert_trees_close, assert_trees_close_to_rounding
from ._case import Case
from ._laws import LAWS
from ._model import MODEL_LAWS, check_model
from ._optimizer import check_compiled, check_optimizer
from ._transform import TRANSFORM_LAWS, TransformCase, check_transform

__all__ = [
    "Case",
    "LAWS",
    "MODEL_LAWS",
    "TRANSFORM_LAWS",
    "TransformCase",
    "assert_trees_close",
    "assert_trees_close_to_rounding",
    "check_compiled",
    "check_model",
    "check_optimizer",
    "check_transform",
]
