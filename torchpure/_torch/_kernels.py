"""Operations of torch that have no public name."""

from typing import Any

import torch
from torch import _assert_async as assert_async
from torch import _foreach_add as foreach_add
from torch import _foreach_clone as foreach_clone
from torch import _foreach_lerp as foreach_lerp
from torch import _foreach_mul as foreach_mul
from torch import _foreach_norm as foreach_norm
from torch import _foreach_sub as foreach_sub
from torch import _fused_adam_ as fused_adam_
from torch import _fused_adamw_ as fused_adamw_
from torch import _fused_sgd_ as fused_sgd_
from torch import _native_batch_norm_legit as native_batch_norm_legit
from torch import _nested_tensor_from_mask_left_aligned as nested_tensor_from_mask_left_aligned
from torch import _sample_dirichlet as sample_dirichlet
from torch import _standard_gamma as standard_gamma
from torch import _standard_gamma_grad as standard_gamma_grad
from torch import _weight_norm as weight_norm
from torch._C._nn import mse_loss as mse_loss

_nn: Any = torch._C._nn  # the stubs lack these
rrelu_with_noise: Any = _nn.rrelu_with_noise
rrelu_with_noise_: Any = _nn.rrelu_with_noise_
