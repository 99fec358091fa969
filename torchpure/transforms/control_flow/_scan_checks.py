"""Checks of the arguments of `scan`."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable
from torchpure.transforms.engine import describe_function, refuse_nested


def length_of(caller: str, f: Callable[..., Any], xs: Tree, leaves: Sequence[Any], length: Any) -> int:
    if length is not None and (type(length) is not int or length < 0):
        raise TransformError(f"{caller}: length must be an int of at least 0, got {tree.describe(length)}")
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor) or not leaf.ndim:
            raise TransformError(
                f"{caller}: {describe_function(f)}: xs at `{tree.paths(xs)[i]}` must be a tensor whose dimension 0 has "
                f"the slices, got {tree.describe(leaf)}. What is the same for all steps can be captured"
            )
    try:
        sizes = {leaf.shape[0]: i for i, leaf in reversed(list(enumerate(leaves)))}
    except RuntimeError:
        refuse_nested(caller, f, leaves)
        raise
    if len(sizes) > 1:
        names = tree.paths(xs)
        lengths = ", ".join(f"{size} at `{names[i]}`" for size, i in sorted(sizes.items(), key=lambda item: item[1]))
        raise TransformError(f"{caller}: {describe_function(f)}: xs differ in length: {lengths}")
    if not sizes and length is None:
        raise TransformError(
            f"{caller}: {describe_function(f)}: without xs the number of steps is unknown: pass length="
        )
    if sizes and length is not None and length not in sizes:
        raise TransformError(
            f"{caller}: {describe_function(f)}: length={length}, but xs have {next(iter(sizes))} slices: "
            "leave out length"
        )
    return next(iter(sizes), length or 0)


def check_inverse(inverse: Any, unroll: int) -> None:
    """Check what can be seen of an inverse before the first step."""
    check_callable("scan", inverse)
    if unroll != 1:
        raise TransformError(f"scan: inverse undoes single steps, but unroll={unroll} joins them: leave out one")
    try:
        parameters = signature(inverse)
    except (TypeError, ValueError):  # a function written in C
        return
    try:
        parameters.bind(None, None)
    except TypeError as error:
        raise TransformError(
            f"scan: inverse {describe_function(inverse)} must take two arguments, inverse(carry, x), and return the "
            f"carry before the step; it takes {parameters}: {error}"
        ) from None


def check_counts(unroll: Any, remat: Any) -> None:
    if type(unroll) is not int or unroll < 1:
        raise TransformError(f"scan: unroll must be an int of at least 1, got {tree.describe(unroll)}")
    if remat is not None and (type(remat) is not int or remat < 1):
        raise TransformError(f"scan: remat must be an int of at least 1, or None, got {tree.describe(remat)}")
