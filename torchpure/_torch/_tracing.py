"""torch's tracer, and tensors without numbers."""

from torch._C import TensorBase as _TensorBase
from torch._C import _set_warn_deprecated_on_mutable_data_ptr as warn_on_data_pointer
from torch._C._dynamo.eval_frame import get_eval_frame_callback as get_eval_frame_callback
from torch._guards import TracingContext as TracingContext
from torch._guards import detect_fake_mode as detect_fake_mode
from torch._guards import tracing as tracing
from torch._higher_order_ops.utils import reenter_make_fx as reenter_make_fx
from torch._subclasses.fake_tensor import DynamicOutputShapeException as DynamicOutputShapeException
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
from torch._subclasses.fake_tensor import FakeTensorConverter as FakeTensorConverter
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch._subclasses.fake_tensor import disable_fake_tensor_cache as disable_fake_tensor_cache
from torch._subclasses.fake_tensor import in_kernel_invocation_manager as meta_kernels
from torch.fx._lazy_graph_module import _LazyGraphModule as LazyGraphModule
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode as ProxyTorchDispatchMode
from torch.fx.experimental.proxy_tensor import PythonKeyTracer as PythonKeyTracer
from torch.fx.experimental.proxy_tensor import _MakefxTracer as MakefxTracer
from torch.fx.experimental.proxy_tensor import _ProxyTensor as ProxyTensor
from torch.fx.experimental.proxy_tensor import _set_make_fx_tracer as set_make_fx_tracer
from torch.fx.experimental.proxy_tensor import disable_autocast_cache as disable_autocast_cache
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing as disable_proxy_modes_tracing
from torch.fx.experimental.proxy_tensor import get_proxy_mode as get_proxy_mode
from torch.fx.experimental.proxy_tensor import get_proxy_slot as get_proxy_slot
from torch.fx.experimental.proxy_tensor import make_fx as make_fx
from torch.fx.experimental.proxy_tensor import track_tensor_tree as track_tensor_tree

make_subclass = _TensorBase._make_subclass
