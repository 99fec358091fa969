"""Print values, or pass them to a function, from inside transforms and compiled programs (as `jax.debug`)."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._torch import temporarily_clear_interpreter_stack
from torchpure._types import Tree
from torchpure.transforms.calls import Packed, callback_p, check_callable, is_tracing
from torchpure.transforms.context import active_masks, callbacks_suppressed
from torchpure.transforms.engine import expose, functorch


def print(fmt: str, *args: Tree, **kwargs: Tree) -> None:
    """Print `fmt.format(*args, **kwargs)`, with the values of tensors.

    Under `vmap` it prints once for each member that runs this line: in a branch of `cond`, for each member that chose
    it. Under derivatives it prints the value, and in a traced program whenever that runs.

    >>> import torch
    >>> from torchpure import vmap
    >>> vmap(lambda x: (print("x = {}", x), x)[1])(torch.tensor([1.0, 2.0]))
    x = 1.0
    x = 2.0
    tensor([1., 2.])
    """
    callback(partial(_print_values, fmt, tuple(kwargs)), *args, *kwargs.values())


def _print_values(fmt: str, names: tuple[str, ...], *values: Any) -> None:
    values = tuple(tree.map(_to_number, value) for value in values)
    split = len(values) - len(names)
    text = fmt.format(*values[:split], **dict(zip(names, values[split:], strict=True)))
    sys.stdout.write(text + "\n")


def _to_number(leaf: Any) -> Any:
    return leaf.item() if isinstance(leaf, Tensor) and not leaf.ndim else leaf


def callback(fn: Callable[..., Any], *args: Tree) -> None:
    """Call `fn(*args)` for its side effect, with the values of tensors, as often as `print` prints.

    `fn` gets ordinary tensors, in the structure of the arguments. Its result is not used.

    >>> import torch
    >>> from torchpure import grad
    >>> seen = []
    >>> grad(lambda x: (callback(seen.append, x), x**2)[1])(torch.tensor(3.0)), seen
    (tensor(6.), [tensor(3.)])
    """
    check_callable("debug.callback", fn)
    if callbacks_suppressed() or is_dynamo_compiling():
        return
    packed = Packed()
    masks = active_masks()
    unwrapped = [_unwrapped(expose(leaf)) for leaf in (*masks, *packed.flatten(args))]
    levels = [dims for _, dims in unwrapped]

    def call_if_active(*tensors: Tensor) -> None:
        if all(tensors[: len(masks)]):
            fn(*packed.unflatten(tensors[len(masks) :]))

    run = partial(_for_each_member, call_if_active, levels)
    with temporarily_clear_interpreter_stack():
        values = [value.detach() for value, _ in unwrapped]
        if is_tracing():
            callback_p(run, tuple(values), "debug")
        else:
            run(*values)


def _unwrapped(leaf: Tensor) -> tuple[Tensor, dict[int, int]]:
    """Return the innermost tensor of a wrapped one, and its batch dimension for each level of vmap."""
    dims: list[tuple[int, int]] = []
    while functorch.is_functorch_wrapped_tensor(leaf):
        if functorch.is_batchedtensor(leaf):
            dims.append((functorch.maybe_get_level(leaf), functorch.maybe_get_bdim(leaf)))
        leaf = functorch.get_unwrapped(leaf)
    remaining = list(range(leaf.ndim))
    found: dict[int, int] = {}
    for level, dim in reversed(dims):  # the outermost vmap is the innermost wrapper
        found[level] = remaining.pop(dim)
    return leaf, found


def _for_each_member(fn: Callable[..., Any], levels: Sequence[dict[int, int]], *values: Tensor) -> None:
    """Call a function once for each member."""
    sizes = {level: value.shape[dim] for value, dims in zip(values, levels, strict=True) for level, dim in dims.items()}
    order = sorted(sizes)
    for numbers in product(*(range(sizes[level]) for level in order)):
        member = dict(zip(order, numbers, strict=True))
        fn(*(_member(value, dims, member) for value, dims in zip(values, levels, strict=True)))


def _member(value: Tensor, dims: dict[int, int], member: dict[int, int]) -> Tensor:
    for level, dim in sorted(dims.items(), key=lambda item: -item[1]):
        value = value.select(dim, member[level])
    return value
