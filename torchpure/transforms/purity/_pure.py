"""`pure`: check each operation of a function for mutations and draws."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from torchpure import tree
from torchpure._torch import TorchDispatchMode
from torchpure._types import P, T
from torchpure.errors import ImpureError
from torchpure.transforms.calls import check_callable
from torchpure.transforms.engine import describe_function, user_line

from ._draws import operator_draws
from ._reach import name_of


def pure(fn: Callable[P, T]) -> Callable[P, T]:
    """Return a function that computes what `fn` does, and checks each of its operations.

    Tensors that the call itself made may be changed. A change of any other tensor is refused before it happens, and so
    is a draw from the global generator. Slow: every operation passes through Python.

    Law: `pure(fn)(*args) == fn(*args)`.

    Raises:
        ImpureError: an operation is not pure; the message names it, the user's line, and the tensor.

    >>> totals = torch.zeros(2)
    >>> pure(lambda x: totals.add_(x))(torch.ones(2))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    torchpure.errors.ImpureError: pure: `<lambda>` ..., `aten.add_` would change a float32 tensor ... `totals`
    """
    check_callable("pure", fn)

    @wraps(fn, updated=())
    def checked(*args: Any, **kwargs: Any) -> Any:
        with _Checks(fn, args):
            return fn(*args, **kwargs)

    return checked


class _Checks(TorchDispatchMode):
    """Refuses operations that write to memory which was not allocated under this mode, and operations that draw."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__()
        self._fn, self._args = fn, args
        self._born: dict[int, StorageWeakRef] = {}  # weak references: a key is not used again while one lives

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if operator_draws(func, args, kwargs):
            self._refuse(func, "draws from the global generator: draw from a key, with tp.random")
        given = [leaf for leaf in tree.leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for changed in mutated_arguments(func, args, kwargs):
            if storage_key(changed) not in self._born:
                what = _name(changed, self._fn, self._args)
                self._refuse(func, f"would change {what}: clone it, or return the new value")
        out = func(*args, **kwargs)
        known = set() if is_lifted_literal(func, out) else {storage_key(leaf) for leaf in given}
        for leaf in tree.leaves(out):
            if isinstance(leaf, Tensor) and storage_key(leaf) not in known:
                self._born[storage_key(leaf)] = StorageWeakRef(leaf.untyped_storage())
        return out

    def _refuse(self, func: Any, what: str) -> None:
        raise ImpureError(f"pure: {describe_function(self._fn)}{user_line()} `{_short(func)}` {what}")


def _short(func: Any) -> str:
    return str(func).rsplit(".", 1)[0]


def is_lifted_literal(func: Any, out: Any) -> bool:
    """Return whether an operation is the last one of `torch.tensor(0)`: its result is new, although it is its argument.

    `torch.from_numpy` ends with the same operation, but its memory is the array's, which cannot be resized.
    """
    return func is torch.ops.aten.lift_fresh.default and out.untyped_storage().resizable()


def storage_key(leaf: Tensor) -> int:
    """Return a number for the storage of a tensor, unique among live storages."""
    return leaf.untyped_storage()._cdata


NORMS_THAT_WRITE = frozenset(
    {torch.ops.aten.native_batch_norm.default, torch.ops.aten.cudnn_batch_norm.default}
)  # their schemas do not say that they write


def mutated_arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """List the arguments that an operation writes to, by its schema."""
    norm = func in NORMS_THAT_WRITE
    if not (norm or func._schema.is_mutable):
        return []
    named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    writes = [argument.name for argument in func._schema.arguments if argument.is_write]
    if norm and named["training"]:
        writes = ["running_mean", "running_var"]
    return [leaf for name in writes for leaf in tree.leaves(named.get(name)) if isinstance(leaf, Tensor)]


def _name(changed: Tensor, fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Name the argument or captured tensor that has the memory of a changed one."""
    for path, leaf in zip(tree.paths(args), tree.leaves(args), strict=True):
        if isinstance(leaf, Tensor) and storage_key(leaf) == storage_key(changed):
            return f"argument {path.replace('.', ' at ', 1)}, {tree.describe(leaf)}"
    return name_of(changed, fn, same=lambda a, b: storage_key(a) == storage_key(b))
