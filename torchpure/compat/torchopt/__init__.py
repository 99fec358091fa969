"""torchopt 0.7.3 by its own names: `import torchpure.compat.torchopt as torchopt`.

docs/compat-torchopt.md lists every name, and where results are better than torchopt's.
"""

from . import accelerated_op as accelerated_op
from . import alias as alias
from . import base as base
from . import clip as clip
from . import combine as combine
from . import diff as diff
from . import distributed as distributed
from . import hook as hook
from . import linalg as linalg
from . import linear_solve as linear_solve
from . import nn as nn
from . import optim as optim
from . import pytree as pytree
from . import schedule as schedule
from . import transform as transform
from . import typing as typing
from . import update as update
from . import utils as utils
from . import version as version
from . import visual as visual
from .accelerated_op import is_available as accelerated_op_available
from .alias import adadelta, adagrad, adam, adamax, adamw, radam, rmsprop, sgd
from .clip import clip_grad_norm
from .combine import chain
from .hook import register_hook
from .optim import (
    SGD,
    AdaDelta,
    Adadelta,
    AdaGrad,
    Adagrad,
    Adam,
    AdaMax,
    Adamax,
    AdamW,
    Optimizer,
    RAdam,
    RMSProp,
    RMSprop,
)
from .optim.func import FuncOptimizer
from .optim.meta import (
    MetaAdaDelta,
    MetaAdadelta,
    MetaAdaGrad,
    MetaAdagrad,
    MetaAdam,
    MetaAdaMax,
    MetaAdamax,
    MetaAdamW,
    MetaOptimizer,
    MetaRAdam,
    MetaRMSProp,
    MetaRMSprop,
    MetaSGD,
)
from .transform import nan_to_num
from .update import apply_updates
from .utils import extract_state_dict, module_clone, module_detach_, recover_state_dict, stop_gradient
from .version import __version__

__all__ = [
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "FuncOptimizer",
    "MetaAdaDelta",
    "MetaAdaGrad",
    "MetaAdaMax",
    "MetaAdadelta",
    "MetaAdagrad",
    "MetaAdam",
    "MetaAdamW",
    "MetaAdamax",
    "MetaOptimizer",
    "MetaRAdam",
    "MetaRMSProp",
    "MetaRMSprop",
    "MetaSGD",
    "Optimizer",
    "RAdam",
    "RMSProp",
    "RMSprop",
    "SGD",
    "__version__",
    "accelerated_op_available",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "apply_updates",
    "chain",
    "clip_grad_norm",
    "extract_state_dict",
    "module_clone",
    "module_detach_",
    "nan_to_num",
    "radam",
    "recover_state_dict",
    "register_hook",
    "rmsprop",
    "sgd",
    "stop_gradient",
]
