"""The levels of torch's transforms: opened, closed, and read off tensors that they wrap."""

from torch._C._functorch import CVmapInterpreterPtr as CVmapInterpreterPtr
from torch._C._functorch import TransformType as TransformType
from torch._C._functorch import _add_batch_dim as add_batch_dim
from torch._C._functorch import _grad_decrement_nesting as grad_decrement_nesting
from torch._C._functorch import _grad_increment_nesting as grad_increment_nesting
from torch._C._functorch import _jvp_decrement_nesting as jvp_decrement_nesting
from torch._C._functorch import _jvp_increment_nesting as jvp_increment_nesting
from torch._C._functorch import _remove_batch_dim as remove_batch_dim
from torch._C._functorch import _unwrap_for_grad as unwrap_for_grad
from torch._C._functorch import _vmap_decrement_nesting as vmap_decrement_nesting
from torch._C._functorch import _vmap_increment_nesting as vmap_increment_nesting
from torch._C._functorch import _wrap_for_grad as wrap_for_grad
from torch._C._functorch import get_inplace_requires_grad_allowed as get_inplace_requires_grad_allowed
from torch._C._functorch import get_interpreter_stack as get_interpreter_stack
from torch._C._functorch import get_unwrapped as get_unwrapped
from torch._C._functorch import is_batchedtensor as is_batchedtensor
from torch._C._functorch import is_functorch_wrapped_tensor as is_functorch_wrapped_tensor
from torch._C._functorch import is_gradtrackingtensor as is_gradtrackingtensor
from torch._C._functorch import maybe_current_level as maybe_current_level
from torch._C._functorch import maybe_get_bdim as maybe_get_bdim
from torch._C._functorch import maybe_get_level as maybe_get_level
from torch._C._functorch import peek_interpreter_stack as peek_interpreter_stack
from torch._C._functorch import pop_dynamic_layer_stack as pop_dynamic_layer_stack
from torch._C._functorch import push_dynamic_layer_stack as push_dynamic_layer_stack
from torch._C._functorch import set_inplace_requires_grad_allowed as set_inplace_requires_grad_allowed
