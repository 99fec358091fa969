"""Parts of torch's forward mode."""

from torch._C import _enter_dual_level as enter_dual_level
from torch._C import _exit_dual_level as exit_dual_level
from torch._C import _is_fwd_grad_enabled as is_fwd_grad_enabled
from torch._C import _set_grad_enabled as set_grad_enabled
from torch._functorch import eager_transforms as eager_transforms
from torch._VF import _make_dual as make_dual
from torch._VF import _unpack_dual as unpack_dual
from torch.autograd import forward_ad as forward_ad
from torch.autograd.forward_ad import _maybe_load_decompositions as maybe_load_decompositions
from torch.autograd.forward_ad import _set_fwd_grad_enabled as set_fwd_grad_enabled
