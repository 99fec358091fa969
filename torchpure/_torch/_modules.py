"""Parts of torch.nn, and modules of torch that hold functions of its Python."""

from torch import _jit_internal as jit_internal
from torch import _tensor as tensor
from torch.nn._reduction import get_enum as get_enum
from torch.nn.init import _calculate_fan_in_and_fan_out as calculate_fan_in_and_fan_out
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
