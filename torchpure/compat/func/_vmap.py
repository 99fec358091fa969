"""`vmap` with torch.func's `randomness=`: draws come from keys, and the keys from torch's global generator."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from torchpure import random, transforms
from torchpure._types import P, T
from torchpure.model import call_with_key

MODES = ("error", "different", "same")


def check_randomness(randomness: str) -> None:
    """Check the flag.

    Raises:
        RuntimeError: it is none of "error", "different" and "same", as in torch.func.
    """
    if randomness not in MODES:
        raise RuntimeError(f"randomness must be 'error', 'different' or 'same', got {randomness!r}")


def drawn_key() -> Tensor:
    """Draw a key from torch's global generator, so that `torch.manual_seed` decides on all draws."""
    return random.key(int(torch.randint(1 << 62, ())))


def with_key(caller: str, func: Callable[..., T]) -> Callable[..., T]:
    """Return the function of a key and the arguments that answers all draws of `func` from the key."""

    @wraps(func, updated=())
    def keyed(key: Tensor, *args: Any, **kwargs: Any) -> T:
        return call_with_key(caller, lambda: func(*args, **kwargs), key)

    return keyed


def vmap(
    func: Callable[P, T],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[P, T]:
    """Map a function over a dimension of its arguments, with the signature of `torch.func.vmap`.

    With `randomness="different"` each member draws its own numbers, with "same" all draw the same; with "error" a draw
    is an error. Keys answer the draws; each call takes a new key from torch's global generator, so `torch.manual_seed`
    repeats a run. The numbers are not those of torch.func: chunks do not change them here.

    Raises:
        TransformError: as for `tp.vmap`. It is a ValueError and a RuntimeError, as torch.func's errors are.
        RuntimeError: the flag is unknown.

    >>> noisy = vmap(lambda x: x + torch.rand(()), randomness="same")
    >>> out = noisy(torch.zeros(3))
    >>> bool((out == out[0]).all())
    True
    """
    check_randomness(randomness)
    if randomness == "error":
        return transforms.vmap(func, in_dims, out_dims, chunk_size=chunk_size)
    keyed = with_key("vmap", func)

    @wraps(func, updated=())
    def mapped(*args: P.args, **kwargs: P.kwargs) -> T:
        dims = in_dims if isinstance(in_dims, tuple | list) else (in_dims,) * len(args)
        if randomness == "same":
            run = transforms.vmap(keyed, (None, *dims), out_dims, chunk_size=chunk_size)
            return run(drawn_key(), *args, **kwargs)
        counted = transforms.vmap(lambda *_: torch.zeros(()), tuple(dims))(*args)
        keys = random.split(drawn_key(), len(counted))
        return transforms.vmap(keyed, (0, *dims), out_dims, chunk_size=chunk_size)(keys, *args, **kwargs)

    return mapped
