"""Calling a module under torch.compile, which can trace `functional_call` and no private copies."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from torchpure._types import Key, State
from torchpure.errors import ImpureError
from torchpure.model.copies import Pool
from torchpure.model.draws import KeyedDraws, RefuseDraws


def traced_call(
    pool: Pool, given: list[Tensor], inputs: tuple[Any, ...], options: dict[str, Any], watched: bool
) -> Any:
    """Call a module that draws nothing and changes no buffer.

    Raises:
        ImpureError: a submodule would change its buffers, or names a random call.
    """
    for name, sub in pool.template.named_modules():
        if getattr(sub, "running_mean", None) is not None and sub.training:
            raise ImpureError(
                f"{type(pool.template).__name__} changes the buffers of `{name}`, so its call is not pure: "
                "use net.apply(params, state, *inputs), which returns the new state, or eval mode"
            )
    output, _ = _run(pool, given, pool.buffers.copies(), inputs, options, RefuseDraws() if watched else nullcontext())
    return output


def traced_apply(
    pool: Pool,
    given: list[Tensor],
    held: list[Tensor],
    inputs: tuple[Any, ...],
    options: dict[str, Any],
    key: Key | None,
    watched: bool,
) -> tuple[Any, State]:
    """Call a module: (output, new state).

    Raises:
        ImpureError: it names a random call that torch.compile hides from us.
    """
    mode = nullcontext() if not watched else RefuseDraws() if key is None else KeyedDraws(key)
    return _run(pool, given, [buffer.clone() for buffer in held], inputs, options, mode)


def _run(
    pool: Pool,
    given: list[Tensor],
    buffers: list[Tensor],
    inputs: tuple[Any, ...],
    options: dict[str, Any],
    mode: AbstractContextManager[Any],
) -> tuple[Any, State]:
    if pool.names_draw:
        raise ImpureError(
            f"{type(pool.template).__name__} names a random call that torch.compile traces past every key: pass it in"
        )
    names = (*pool.parameters.names, *pool.buffers.names)
    values = {f"module.{name}": value for name, value in zip(names, (*given, *buffers), strict=True)}
    with mode:
        return torch.func.functional_call(pool.traced, values, (inputs, options))
