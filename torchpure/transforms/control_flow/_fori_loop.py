"""`fori_loop`: a loop over a range of integers."""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from torchpure import tree
from torchpure._types import T, Tree
from torchpure.errors import TransformError
from torchpure.transforms.calls import check_callable

from ._scan import run_scan
from ._while_loop import while_loop


def fori_loop(lower: int | Tensor, upper: int | Tensor, body_fn: Callable[[Tensor, T], T], init: T) -> T:
    """Apply `value = body_fn(i, value)` for each `i` in `range(lower, upper)`; return the last value.

    If both bounds are ints this is a `scan`, with every derivative. Otherwise it is a `while_loop`.

    Raises:
        TransformError: a bound is not an integer of shape (), or `body_fn` changes a shape or dtype.
        StructureError: `body_fn` changes the structure.

    >>> fori_loop(1, 5, lambda i, total: total + i, torch.tensor(0))
    tensor(10)
    """
    check_callable("fori_loop", body_fn)
    for name, bound in (("lower", lower), ("upper", upper)):
        is_integer = isinstance(bound, Tensor) and bound.dtype in _INTEGER_DTYPES and not bound.ndim
        if type(bound) is not int and not is_integer:
            raise TransformError(f"fori_loop: {name} must be an integer of shape (), got {tree.describe(bound)}")
    if isinstance(lower, int) and isinstance(upper, int):

        @wraps(body_fn)
        def step(value: Tree, i: Tensor) -> tuple[Tree, None]:
            return body_fn(i, value), None

        device = next((leaf.device for leaf in tree.leaves(init) if isinstance(leaf, Tensor)), None)
        indices = torch.arange(lower, max(lower, upper), device=device)
        return run_scan("fori_loop", step, init, indices, None)[0]

    @wraps(body_fn)
    def counted_body(state: tuple[Tensor, Tree]) -> tuple[Tensor, Tree]:
        return state[0] + 1, body_fn(state[0], state[1])

    start = torch.as_tensor(lower).to(torch.int64)
    return while_loop(lambda state: state[0] < upper, counted_body, (start, init))[1]


_INTEGER_DTYPES = frozenset({torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8})
