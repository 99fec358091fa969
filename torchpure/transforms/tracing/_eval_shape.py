"""`eval_shape`: shapes and dtypes of results, without computing them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure._compile_lock import compile_lock
from torchpure._torch import FakeTensorMode
from torchpure._types import Tree
from torchpure.transforms.calls import check_callable
from torchpure.transforms.engine import TensorIndexing, refuse_nested
from torchpure.transforms.purity import Watch, refuse_hidden_tensors

from ._constants import RealConstants, is_fake
from ._refusals import explain_tracing_errors


@dataclass(frozen=True, slots=True)
class ShapeDtype:
    """A tensor without its numbers."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def eval_shape(fn: Callable[..., Any], *args: Tree, **kwargs: Any) -> Tree:
    """Return the shapes, dtypes and devices of what `fn` would return, without computing it.

    Arguments are tensors or `ShapeDtype`s. No memory is allocated for values.

    Raises:
        TransformError: `fn` needs numbers: it branches on a value, or calls `.item()`.

    >>> eval_shape(lambda a, b: a @ b, torch.ones(2, 3), ShapeDtype((3, 4), torch.float32))
    ShapeDtype(shape=(2, 4), dtype=torch.float32, device=device(type='cpu'))
    """
    check_callable("eval_shape", fn)
    refuse_nested("eval_shape", fn, tree.leaves((args, kwargs)), jagged=True)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with compile_lock:
        fake_args, fake_kwargs = tree.map(lambda leaf: _to_fake(mode, leaf), (args, kwargs))
        with mode, RealConstants(), TensorIndexing(), explain_tracing_errors("eval_shape", fn):
            watch = Watch("eval_shape", fn, fake_args, fake_kwargs)
            out = fn(*fake_args, **fake_kwargs)
            watch.check(traced=is_fake)
            refuse_hidden_tensors("eval_shape", fn, tree.leaves(out), is_fake)
    refuse_nested("eval_shape", fn, tree.leaves(out))
    return tree.map(_shape_of, out)


def _to_fake(mode: FakeTensorMode, leaf: Any) -> Any:
    if isinstance(leaf, ShapeDtype):
        with mode:
            return torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device)
    return mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf


def _shape_of(leaf: Any) -> Any:
    return ShapeDtype(tuple(leaf.shape), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def describe_shape(leaf: Any) -> str:
    if not isinstance(leaf, ShapeDtype):
        return tree.describe(leaf)
    return f"a {str(leaf.dtype).removeprefix('torch.')} tensor of shape {leaf.shape} on {leaf.device}"
