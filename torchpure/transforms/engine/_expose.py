"""Show the tensors that a transform takes and returns to the function modes around it.

Example: `calls/_closure_convert.py` finds the tensors that a function captures by a mode, which sees operations only. A
captured tensor that goes straight into `vmap` passes through no operation. So each transform calls `expose` on what it
takes and returns, an identity that a mode can see and answer with another tensor.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.overrides import handle_torch_function, has_torch_function

from torchpure._torch import len_torch_function_stack

_modes: Any = len_torch_function_stack


def expose(leaf: Any) -> Any:
    """Return a leaf, or the tensor that a function mode puts in its place."""
    if not isinstance(leaf, Tensor):
        return leaf
    return handle_torch_function(expose, (leaf,), leaf) if has_torch_function((leaf,)) else leaf


def expose_all(leaves: Iterable[Any]) -> list[Any]:
    """Return `expose` of each leaf; without any mode this costs nothing."""
    return list(leaves) if is_dynamo_compiling() or not _modes() else list(map(expose, leaves))
