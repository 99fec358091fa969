"""torch.func and functorch by their own names: `import torchpure.compat.func as func`.

The transforms are this library's, with torch.func's signatures: they compose, and are right where torch.func's are
silently wrong (docs/from-torch-func.md). What only calls a module or rearranges tensors is torch's own.
"""

from torch.func import (
    debug_unwrap,
    functional_call,
    functionalize,
    rearrange,
    replace_all_batch_norm_modules_,
    stack_module_state,
)

from torchpure._torch import make_fx

from ._derivatives import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, linearize, vjp
from ._functorch import (
    FunctionalModule,
    FunctionalModuleWithBuffers,
    combine_state_for_ensemble,
    make_functional,
    make_functional_with_buffers,
)
from ._vmap import vmap

__all__ = [
    "FunctionalModule",
    "FunctionalModuleWithBuffers",
    "combine_state_for_ensemble",
    "debug_unwrap",
    "functional_call",
    "functionalize",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "make_functional",
    "make_functional_with_buffers",
    "make_fx",
    "rearrange",
    "replace_all_batch_norm_modules_",
    "stack_module_state",
    "vjp",
    "vmap",
]
