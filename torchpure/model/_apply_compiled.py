"""Call a module under torch.compile, by `functional_call`: torch.compile cannot trace calls of private copies."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from torchpure._types import Key, State
from torchpure.errors import ImpureError
from torchpure.model.copies import Pool
from torchpure.model.draws import KeyedDraws, RefuseDraws


def call_compiled(
    pool: Pool, parameters: list[Tensor], inputs: tuple[Any, ...], options: dict[str, Any], may_draw: bool
) -> Any:
    """Call a module that draws nothing and changes no buffer.

    Raises:
        ImpureError: a submodule would change its buffers, or its code names a random function.
    """
    for name, sub in pool.template.named_modules():
        if getattr(sub, "running_mean", None) is not None and sub.training:
            raise ImpureError(
                f"{type(pool.template).__name__} changes the buffers of `{name}`, so its call is not pure: "
                "use net.apply(params, state, *inputs), which returns the new state, or eval mode"
            )
    output, _ = _run_functional_call(
        pool, parameters, pool.buffers.clones(), inputs, options, RefuseDraws() if may_draw else nullcontext()
    )
    return output


def apply_compiled(
    pool: Pool,
    parameters: list[Tensor],
    buffers: list[Tensor],
    inputs: tuple[Any, ...],
    options: dict[str, Any],
    key: Key | None,
    may_draw: bool,
) -> tuple[Any, State]:
    """Call a module and return (output, new state).

    Raises:
        ImpureError: its code names a random function whose calls torch.compile hides from function modes.
    """
    mode = nullcontext() if not may_draw else RefuseDraws() if key is None else KeyedDraws(key)
    return _run_functional_call(pool, parameters, [buffer.clone() for buffer in buffers], inputs, options, mode)


def _run_functional_call(
    pool: Pool,
    parameters: list[Tensor],
    buffers: list[Tensor],
    inputs: tuple[Any, ...],
    options: dict[str, Any],
    mode: AbstractContextManager[Any],
) -> tuple[Any, State]:
    if pool.names_rand_like:
        raise ImpureError(
            f"{type(pool.template).__name__} names a random call that torch.compile traces past every key: draw the "
            "numbers outside and pass them in"
        )
    names = (*pool.parameters.names, *pool.buffers.names)
    values = {f"module.{name}": value for name, value in zip(names, (*parameters, *buffers), strict=True)}
    with mode:
        return torch.func.functional_call(pool.compilable, values, (inputs, options))
