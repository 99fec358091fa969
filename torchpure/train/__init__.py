"""Training: the loop, and fitting a model to data."""

from ._batches import minibatches as minibatches
from ._fit import Fit as Fit
from ._fit import fit as fit
from ._fit import mean_square as mean_square
from ._loop import Progress as Progress
from ._loop import loop as loop
