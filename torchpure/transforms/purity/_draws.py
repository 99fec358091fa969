"""Which aten operators draw from the global generator: a tag says which may, the arguments say whether they do."""

from collections.abc import Mapping
from typing import Any

import torch

_SWITCHES = ("train", "training", "dropout_p", "dropout")  # if one of these is false, the operator draws nothing


def operator_draws(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an operator draws when it is called with these arguments."""
    if torch.Tag.nondeterministic_seeded not in operator.tags:
        return False
    values = [
        kwargs.get(argument.name, args[place] if place < len(args) else argument.default_value)
        for place, argument in enumerate(operator._schema.arguments)
        if argument.name in _SWITCHES
    ]
    return all(value is None or value for value in values)
