"""Tensors that go into torch's transforms, or come out, without passing through an operation that others could see.

Whoever looks for what a function captures (`_closure`) sees operations alone. So every transform shows what it takes
and what it returns here first, and works on what it gets back.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.overrides import handle_torch_function, has_torch_function

from torchpure._torch import len_torch_function_stack

_modes: Any = len_torch_function_stack


def seen(leaf: Any) -> Any:
    """Return what functions around put in the place of a tensor; other leaves as they are."""
    if not isinstance(leaf, Tensor):
        return leaf
    return handle_torch_function(seen, (leaf,), leaf) if has_torch_function((leaf,)) else leaf


def all_seen(leaves: Iterable[Any]) -> list[Any]:
    """Return what functions around put in the places of leaves; costs nothing where there are none."""
    return list(leaves) if is_dynamo_compiling() or not _modes() else list(map(seen, leaves))
