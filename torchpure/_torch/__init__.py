"""The one door to torch's private API: no other module of this library names it.

A name loses its underscore and stays torch's own otherwise: `torch._C._len_torch_dispatch_stack` is
`len_torch_dispatch_stack` here. It is torch's object itself, so that nothing is slower for coming through here. Where
versions of torch differ, the file of the subject chooses.

`functorch` and `pytree` are modules of this package, because their names mean little alone. `inductor` and
`compiler_config` are modules too, which are slow to import: write `from torchpure._torch import inductor` in the
function that needs it.

Two names are modules of torch, because torch assigns to what they hold: read `forward_ad._current_level` and
`eager_transforms.JVP_NESTING` there each time.

tests/_torch/test_contracts.py says of each name what this library relies on.
"""

from . import functorch as functorch
from . import pytree as pytree
from ._autograd import AccumulateGrad as AccumulateGrad
from ._autograd import custom_function_call as custom_function_call
from ._autograd import get_sequence_nr as get_sequence_nr
from ._autograd import grad_preprocess as grad_preprocess
from ._autograd import run_backward as run_backward
from ._dual_numbers import eager_transforms as eager_transforms
from ._dual_numbers import enter_dual_level as enter_dual_level
from ._dual_numbers import exit_dual_level as exit_dual_level
from ._dual_numbers import forward_ad as forward_ad
from ._dual_numbers import is_fwd_grad_enabled as is_fwd_grad_enabled
from ._dual_numbers import make_dual as make_dual
from ._dual_numbers import maybe_load_decompositions as maybe_load_decompositions
from ._dual_numbers import set_fwd_grad_enabled as set_fwd_grad_enabled
from ._dual_numbers import unpack_dual as unpack_dual
from ._kernels import assert_async as assert_async
from ._kernels import foreach_add as foreach_add
from ._kernels import foreach_clone as foreach_clone
from ._kernels import foreach_lerp as foreach_lerp
from ._kernels import foreach_mul as foreach_mul
from ._kernels import foreach_norm as foreach_norm
from ._kernels import foreach_sub as foreach_sub
from ._kernels import fused_adam_ as fused_adam_
from ._kernels import fused_adamw_ as fused_adamw_
from ._kernels import fused_sgd_ as fused_sgd_
from ._kernels import mse_loss as mse_loss
from ._kernels import native_batch_norm_legit as native_batch_norm_legit
from ._kernels import rrelu_with_noise as rrelu_with_noise
from ._kernels import rrelu_with_noise_ as rrelu_with_noise_
from ._kernels import sample_dirichlet as sample_dirichlet
from ._kernels import standard_gamma as standard_gamma
from ._kernels import standard_gamma_grad as standard_gamma_grad
from ._kernels import weight_norm as weight_norm
from ._levels import lazy_load_decompositions as lazy_load_decompositions
from ._levels import temporarily_clear_interpreter_stack as temporarily_clear_interpreter_stack
from ._memory import storage_use_count as storage_use_count
from ._modes import DisableTorchFunction as DisableTorchFunction
from ._modes import TorchDispatchMode as TorchDispatchMode
from ._modes import TorchDispatchModeKey as TorchDispatchModeKey
from ._modes import autocast_supported_devices as autocast_supported_devices
from ._modes import disable_current_modes as disable_current_modes
from ._modes import get_current_function_mode_stack as get_current_function_mode_stack
from ._modes import get_dispatch_mode as get_dispatch_mode
from ._modes import is_any_autocast_enabled as is_any_autocast_enabled
from ._modes import len_torch_dispatch_stack as len_torch_dispatch_stack
from ._modes import len_torch_function_stack as len_torch_function_stack
from ._modes import pop_mode as pop_mode
from ._modes import push_mode as push_mode
from ._modules import BatchNorm as BatchNorm
from ._modules import calculate_fan_in_and_fan_out as calculate_fan_in_and_fan_out
from ._modules import get_enum as get_enum
from ._modules import jit_internal as jit_internal
from ._modules import tensor as tensor
from ._operators import AutoDispatchBelowAutograd as AutoDispatchBelowAutograd
from ._operators import DispatchKey as DispatchKey
from ._operators import HigherOrderOperator as HigherOrderOperator
from ._operators import OpOverload as OpOverload
from ._operators import OpOverloadPacket as OpOverloadPacket
from ._operators import TensorGuards as TensorGuards
from ._operators import core_aten_decompositions as core_aten_decompositions
from ._operators import get_decompositions as get_decompositions
from ._operators import is_impure as is_impure
from ._tracing import PH as PH
from ._tracing import DynamicOutputShapeException as DynamicOutputShapeException
from ._tracing import FakeTensor as FakeTensor
from ._tracing import FakeTensorMode as FakeTensorMode
from ._tracing import MakefxTracer as MakefxTracer
from ._tracing import ProxyTorchDispatchMode as ProxyTorchDispatchMode
from ._tracing import PythonKeyTracer as PythonKeyTracer
from ._tracing import TracingContext as TracingContext
from ._tracing import detect_fake_mode as detect_fake_mode
from ._tracing import disable_autocast_cache as disable_autocast_cache
from ._tracing import disable_fake_tensor_cache as disable_fake_tensor_cache
from ._tracing import disable_proxy_modes_tracing as disable_proxy_modes_tracing
from ._tracing import fake_signature as fake_signature
from ._tracing import get_proxy_mode as get_proxy_mode
from ._tracing import get_proxy_slot as get_proxy_slot
from ._tracing import make_fx as make_fx
from ._tracing import reenter_make_fx as reenter_make_fx
from ._tracing import set_make_fx_tracer as set_make_fx_tracer
from ._tracing import tracing as tracing
from ._tracing import track_tensor_tree as track_tensor_tree
from ._tracing import wrap_key as wrap_key
