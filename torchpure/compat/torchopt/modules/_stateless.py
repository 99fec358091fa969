"""A module with other tensors in the place of its own."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

_MISSING = object()
_Tensors = Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]


def swap_state(module: nn.Module, named_tensors: _Tensors, allow_missing: bool = False) -> dict[str, Tensor]:
    """Put tensors into a module, and return those that were there.

    Raises:
        AttributeError: the module has no tensor of a name, and `allow_missing` is False.

    >>> import torch
    >>> net = nn.Linear(1, 1, bias=False)
    >>> old = swap_state(net, {"weight": torch.ones(1, 1)})
    >>> net(torch.ones(1))
    tensor([1.])
    """
    return {name: _swap(module, name, tensor, allow_missing) for name, tensor in dict(named_tensors).items()}


def _swap(module: nn.Module, path: str, value: Any, allow_missing: bool) -> Any:
    prefix, _, name = path.rpartition(".")
    owner: Any = module
    for part in prefix.split(".") if prefix else ():
        owner = getattr(owner, part)
    old = getattr(owner, name, _MISSING) if allow_missing else getattr(owner, name)
    if value is _MISSING:
        delattr(owner, name)
        return old
    for kind in ("_parameters", "_buffers", "_meta_parameters"):
        if name in getattr(owner, kind, ()):
            getattr(owner, kind)[name] = value
            return old
    setattr(owner, name, value)
    return old


@contextlib.contextmanager
def reparametrize(module: nn.Module, named_tensors: _Tensors, allow_missing: bool = False) -> Iterator[nn.Module]:
    """Give a module other tensors inside a `with` block."""
    old: dict[str, Tensor] = {}
    try:
        for name, tensor in dict(named_tensors).items():  # one by one: an error restores what was swapped
            old |= swap_state(module, {name: tensor}, allow_missing)
        yield module
    finally:
        swap_state(module, old, allow_missing=allow_missing)


reparameterize = reparametrize
