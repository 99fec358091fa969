"""Parameters as a dict by dotted name, as a tuple in the same order, or as a nested dict."""

from typing import Any, NoReturn

from torch import Size, Tensor

from torchpure import tree
from torchpure._types import Params
from torchpure.errors import ParameterError
from torchpure.transforms.engine import without_function_modes


def nested(flat: dict[str, Tensor]) -> Params:
    """Turn a dict by dotted name into a nested dict.

    >>> nested({"layer.w": 1, "layer.b": 2, "scale": 3})
    {'layer': {'w': 1, 'b': 2}, 'scale': 3}
    """
    result: dict[str, Any] = {}
    for path, value in flat.items():
        *outer, last = path.split(".")
        level = result
        for name in outer:
            level = level.setdefault(name, {})
        level[last] = value
    return result


def flatten(params: Params) -> dict[str, Any]:
    """Turn a nested dict into a dict by dotted name."""
    return dict(zip(tree.paths(params), tree.leaves(params), strict=True))


def in_module_order(
    params: Params, names: list[str], shapes: list[Size], aliases: dict[str, str], owner: str
) -> list[Tensor]:
    """List the values in the module's order.

    Raises:
        ParameterError: a value is missing, unexpected, not a tensor or of a wrong shape; the message names its path.
    """
    try:
        found = [params[name] for name in names] if isinstance(params, dict) else list(params)
        with without_function_modes():
            if len(params) == len(names) and [value.size() for value in found] == shapes:
                return found
    except (KeyError, TypeError, AttributeError):
        pass
    return _checked_in_module_order(params, names, shapes, aliases, owner)


def _checked_in_module_order(
    params: Params, names: list[str], shapes: list[Size], aliases: dict[str, str], owner: str
) -> list[Tensor]:
    if isinstance(params, tuple | list):
        if len(params) != len(names):
            _fail(owner, f"wanted {len(names)} parameters in the order {_some(names)}, got {len(params)}")
        params = dict(zip(names, params, strict=True))
    if not isinstance(params, dict):
        _fail(owner, f"wanted a dict, a tuple or a nested dict, got {tree.describe(params)}")
    given = flatten(params) if any(isinstance(value, dict) for value in params.values()) else params
    problems = [f"missing `{name}`" for name in names if given.get(name) is None]
    problems += [f"unexpected `{name}`{_hint(name, aliases)}" for name in given if name not in names]
    problems += [
        f"`{name}` wants {'' if isinstance(given[name], Tensor) else 'a tensor of '}shape {tuple(shape)}, "
        f"got {tree.describe(given[name])}"
        for name, shape in zip(names, shapes, strict=True)
        if given.get(name) is not None and (not isinstance(given[name], Tensor) or given[name].shape != shape)
    ]
    if problems:
        _fail(owner, _some(problems, "; "))
    return [given[name] for name in names]


def _hint(name: str, aliases: dict[str, str]) -> str:
    return f" (tied to `{aliases[name]}`: give only that one)" if name in aliases else ""


def _some(parts: list[str], separator: str = ", ") -> str:
    return separator.join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")


def _fail(owner: str, message: str) -> NoReturn:
    raise ParameterError(f"{owner}: {message}")
