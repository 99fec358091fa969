"""higher 0.2.1 by its own names: `import torchpure.compat.higher as higher`.

An inner loop trains a copy of a module whose parameters stay in the graph, so that the outer loss is differentiated
through all steps (Grefenstette et al. 2019, arXiv:1910.01727). docs/from-higher.md has the idioms of this library.
"""

from . import optim as optim
from . import patch as patch
from . import utils as utils
from ._innerloop import innerloop_ctx
from .optim import create_diff_optim, get_diff_optim, register_optim
from .patch import monkeypatch

__all__ = ["create_diff_optim", "get_diff_optim", "innerloop_ctx", "monkeypatch", "register_optim"]
