"""Parts of torch's reverse mode."""

from typing import Any

import torch
from torch._C._autograd import _get_sequence_nr as get_sequence_nr
from torch._functorch.autograd_function import custom_function_call as custom_function_call
from torch.autograd.functional import _grad_preprocess as grad_preprocess

_functions: Any = torch._C._functions  # no module that can be imported from, and the stubs lack what it holds
AccumulateGrad: Any = _functions.AccumulateGrad
run_backward: Any = torch.autograd.Variable._execution_engine.run_backward
