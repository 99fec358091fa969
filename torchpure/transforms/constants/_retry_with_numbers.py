"""A second run of a function whose first run passed a differentiated tensor to a builtin operation that wants a number.

torch's parser refuses a tensor that requires grad before any function mode sees the call. It does not see that a
member of a `vmap` requires grad. So the second run maps over a batch of one, and the formulas of `_numbers.py` apply.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchpure import tree
from torchpure.errors import TransformError
from torchpure.transforms.engine import describe_function, is_differentiated, run_vmap, user_line

_AMBIGUOUS = "received an invalid combination of arguments"  # of a tensor for a number, and of any other mistake
_SIGNS = ("must be Number, not Tensor", "must be float, not Tensor", _AMBIGUOUS)


def with_numbers(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `fn`, and calls it again on members of a batch if torch wanted a number.

    Raises:
        TransformError: the second run fails too.
        TypeError: an argument is wrong for another reason; torch's own error.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except TypeError as error:
            if not any(sign in str(error) for sign in _SIGNS):
                raise
            first = error
        leaves, structure = tree.flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and is_differentiated(leaf)]
        if not places:
            raise first
        try:
            return _on_members(fn, leaves, structure, places)
        except TransformError:
            raise
        except (TypeError, RuntimeError) as error:
            if _AMBIGUOUS in str(first):
                raise first from None
            raise TransformError(
                f"{describe_function(fn)}{user_line(first)} passes a tensor that is differentiated where torch wants a "
                f"number ({str(first).splitlines()[0]}). Write the formula in tensors; if the number is a constant, "
                "use tp.stop_gradient"
            ) from error

    return run


def _on_members(fn: Callable[..., Any], leaves: list[Any], structure: Any, places: list[int]) -> Any:
    kept: dict[str, Any] = {}

    def member(*values: Tensor) -> list[Tensor]:
        filled = list(leaves)
        for i, value in zip(places, values, strict=True):
            filled[i] = value
        args, kwargs = tree.unflatten(structure, filled)
        kept["leaves"], kept["structure"] = tree.flatten(fn(*args, **kwargs))
        return [leaf for leaf in kept["leaves"] if isinstance(leaf, Tensor)]

    stacked = iter(run_vmap(member, [leaves[i].unsqueeze(0) for i in places], [0] * len(places), 1))
    outputs = [next(stacked).squeeze(0) if isinstance(leaf, Tensor) else leaf for leaf in kept["leaves"]]
    return tree.unflatten(kept["structure"], outputs)
