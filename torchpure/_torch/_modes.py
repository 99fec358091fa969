"""Modes of functions, of operations and of autocast: which are on, and how to be rid of them."""

from torch._C import DisableTorchFunction as DisableTorchFunction
from torch._C import _autocast_supported_devices as autocast_supported_devices
from torch._C import _DisableTorchDispatch as DisableTorchDispatch
from torch._C import _get_dispatch_mode as get_dispatch_mode
from torch._C import _get_function_stack_at as mode_at
from torch._C import _is_any_autocast_enabled as is_any_autocast_enabled
from torch._C import _len_torch_dispatch_stack as len_torch_dispatch_stack
from torch._C import _len_torch_function_stack as len_torch_function_stack
from torch._C import _TorchDispatchModeKey as TorchDispatchModeKey
from torch.overrides import _get_current_function_mode_stack as get_current_function_mode_stack
from torch.overrides import _pop_mode as pop_mode
from torch.overrides import _push_mode as push_mode
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as disable_current_modes
