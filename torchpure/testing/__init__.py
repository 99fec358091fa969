"""Checks of the laws that this library states, for its own models, optimizers and transforms and for yours."""

from ._assert import assert_trees_close as assert_trees_close
from ._assert import assert_trees_close_to_rounding as assert_trees_close_to_rounding
from ._case import Case as Case
from ._laws import LAWS as LAWS
from ._model import MODEL_LAWS as MODEL_LAWS
from ._model import check_model as check_model
from ._optimizer import check_compiled as check_compiled
from ._optimizer import check_optimizer as check_optimizer
from ._transform import TRANSFORM_LAWS as TRANSFORM_LAWS
from ._transform import TransformCase as TransformCase
from ._transform import check_transform as check_transform
