"""Operations of torch whose rules are wrong or missing, a family a file, its table rows beside it."""

from . import _autograd_functions as _autograd_functions
from . import _losses as _losses
from . import _nested_autograd as _nested_autograd
from . import _norms as _norms
from ._attention import attention_weights as attention_weights
from ._layers import STAND_INS as STAND_INS
from ._layers import inside as inside
from ._layers import standing as standing
