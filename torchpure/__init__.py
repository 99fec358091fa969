"""JAX-style functional PyTorch: `import torchpure as tp`."""

from . import errors as errors
from . import optim as optim
from . import random as random
from . import train as train
from . import tree as tree
from .model import Functional as Functional
from .model import ensemble as ensemble
from .model import functional as functional
from .model import make_functional_fwd as make_functional_fwd
from .model import merge as merge
from .model import partition as partition
from .model import stack as stack
from .model import unstack as unstack
from .train import fit as fit
from .transforms import grad as grad
from .transforms import hessian as hessian
from .transforms import jacfwd as jacfwd
from .transforms import jacrev as jacrev
from .transforms import jvp as jvp
from .transforms import pure as pure
from .transforms import value_and_grad as value_and_grad
from .transforms import vjp as vjp
from .transforms import vmap as vmap
