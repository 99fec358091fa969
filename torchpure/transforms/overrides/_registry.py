"""All overrides, collected from the families, and the tables by which the modes look them up.

To add one: write the rule and its row in the file of its family. To add a family: a file with `OVERRIDES`, named here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.torch_version import TorchVersion

from . import (
    _attention,
    _autograd_functions,
    _borders,
    _by_transposition,
    _failing_members,
    _layers,
    _losses,
    _nested_autograd,
    _norms,
    _recurrent,
    _scatter,
    _solvers,
    _tangents,
)
from ._override import Override, Where

Table = dict[Any, Callable[..., Any]]  # operation -> rule

OVERRIDES: tuple[Override, ...] = (
    *_attention.OVERRIDES,
    *_autograd_functions.OVERRIDES,
    *_borders.OVERRIDES,
    *_by_transposition.OVERRIDES,
    *_failing_members.OVERRIDES,
    *_layers.OVERRIDES,
    *_losses.OVERRIDES,
    *_nested_autograd.OVERRIDES,
    *_norms.OVERRIDES,
    *_recurrent.OVERRIDES,
    *_scatter.OVERRIDES,
    *_solvers.OVERRIDES,
    *_tangents.OVERRIDES,
)


def is_needed(override: Override, version: str = torch.__version__) -> bool:
    """Return whether a version of torch still needs an override; a pre-release of `until` still does."""
    return override.until is None or TorchVersion(version) < override.until


def table(where: Where) -> Table:
    """Return the rules that apply in a place, by operation, without those that this torch does not need."""
    chosen = [override for override in OVERRIDES if where in override.where and is_needed(override)]
    return {operation: override.rule for override in chosen for operation in override.operations}


ALWAYS = table(Where.ALWAYS)
IN_TRANSFORM = table(Where.IN_TRANSFORM)
FORWARD_MODE = table(Where.FORWARD_MODE)
THIRD_GRADIENT = table(Where.THIRD_GRADIENT)
VMAP_RETRY = table(Where.VMAP_RETRY)
TRIED = table(Where.TRIED)
INTERCEPTED = table(Where.INTERCEPTED)
