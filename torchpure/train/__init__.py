"""Training: the loop, fits of a model to data, and sweeps of many runs."""

from ._batches import minibatches as minibatches
from ._fit import Fit as Fit
from ._fit import fit as fit
from ._fit import mean_square as mean_square
from ._loop import Progress as Progress
from ._loop import loop as loop
from ._space import Range as Range
from ._space import choice as choice
from ._space import log_uniform as log_uniform
from ._space import uniform as uniform
from ._sweep import Member as Member
from ._sweep import Sweep as Sweep
from ._sweep import best as best
from ._sweep import member as member
from ._sweep import sweep as sweep
