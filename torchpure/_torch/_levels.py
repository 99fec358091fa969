"""What torch does in Python around the levels of its transforms."""

from torch._C import _ExcludeDispatchKeyGuard as ExcludeDispatchKeyGuard
from torch._functorch.predispatch import lazy_load_decompositions as lazy_load_decompositions
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack as temporarily_clear_interpreter_stack
