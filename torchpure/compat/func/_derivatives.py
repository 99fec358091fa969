"""Derivatives with torch.func's signatures."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

from torchpure import transforms
from torchpure._types import P

from ._vmap import check_randomness, drawn_key, with_key

Argnums = int | Sequence[int]


def grad(func: Callable[P, Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[P, Any]:
    """Return the function that computes the gradient, as `torch.func.grad` does.

    Raises:
        TransformError: the value is no real tensor of shape (), or there is nothing to differentiate.

    >>> import torch
    >>> grad(torch.sin)(torch.tensor(0.0))
    tensor(1.)
    """
    return transforms.grad(func, argnums, has_aux)


def grad_and_value(func: Callable[P, Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[P, Any]:
    """Return the function that computes (gradient, value), or (gradient, (value, aux)).

    Raises:
        TransformError: as for `grad`.

    >>> import torch
    >>> grad_and_value(torch.square)(torch.tensor(3.0))
    (tensor(6.), tensor(9.))
    """
    both = transforms.value_and_grad(func, argnums, has_aux)

    @wraps(func, updated=())
    def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        value, gradient = both(*args, **kwargs)
        return gradient, value

    return run


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Return (value, vjp_fn), or (value, vjp_fn, aux); `vjp_fn` maps cotangents to a tuple of gradients.

    Raises:
        TransformError: a cotangent does not fit the value.

    >>> import torch
    >>> vjp(torch.sin, torch.tensor(0.0))[1](torch.tensor(2.0))
    (tensor(2.),)
    """
    return transforms.vjp(func, *primals, has_aux=has_aux)


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """Return (value, tangent), or (value, tangent, aux).

    Raises:
        TransformError: a tangent does not fit; with `strict`, a value does not depend on the primals.

    >>> import torch
    >>> jvp(torch.sin, (torch.tensor(0.0),), (torch.tensor(2.0),))
    (tensor(0.), tensor(2.))
    """
    return transforms.jvp(func, primals, tangents, has_aux, strict=strict)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """Return the value and its linear map of tangents.

    >>> import torch
    >>> linearize(torch.sin, torch.tensor(0.0))[1](torch.tensor(2.0))
    tensor(2.)
    """
    return transforms.linearize(func, *primals)


def jacrev(
    func: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """Return the function that computes the Jacobian by rows. `_preallocate_and_copy` is accepted, and not needed.

    Raises:
        TransformError: the value is not made of real tensors.

    >>> import torch
    >>> jacrev(torch.square)(torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    return transforms.jacrev(func, argnums, has_aux, chunk_size=chunk_size)


def jacfwd(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable[..., Any]:
    """Return the function that computes the Jacobian by columns.

    A function that draws needs `randomness="same"` or "different". Both draw once here: all columns belong to the
    Jacobian of one function. torch.func's "different" mixes columns of several.

    Raises:
        TransformError: the value is not made of real tensors, or the function draws and `randomness` is "error".
        RuntimeError: the flag is unknown.

    >>> import torch
    >>> jacfwd(torch.square)(torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    check_randomness(randomness)
    if randomness == "error":
        return transforms.jacfwd(func, argnums, has_aux)

    @wraps(func, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        return transforms.jacfwd(partial(with_key("jacfwd", func), drawn_key()), argnums, has_aux)(*args, **kwargs)

    return run


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """Return the function that computes the Hessian.

    Raises:
        TransformError: the value is not made of real tensors.

    >>> import torch
    >>> hessian(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return transforms.hessian(func, argnums)
