"""An unmodified module as a pair of pure functions."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchpure import random, tree
from torchpure._types import Key, Params, State
from torchpure.model.copies import Pool, fill, pool_of
from torchpure.transforms.engine import without_transforms

from ._apply import apply, call
from ._init import construct, fresh, reset


@dataclass(frozen=True, slots=True)
class Functional:
    """A module as a frozen pair of pure functions, with the values that the module had.

    `net(params, *inputs)` calls it when it draws nothing and changes no buffer; `net.apply` is the general form.
    """

    init: Callable[[Key], tuple[Params, State]]
    apply: Callable[..., tuple[Any, State]]
    params: dict[str, Tensor]  # detached copies; tied values once
    state: State  # the buffers, likewise
    trainable: tuple[str, ...]  # the names of the parameters that required grad
    to_module: Callable[..., nn.Module]
    call: Callable[..., Any]
    deterministic: bool = False  # whether it is known, from its code, that calls draw nothing
    runs: int = 0  # what the module's code runs that transforms must see

    def __call__(self, params: Params, *inputs: Any, **options: Any) -> Any:
        """Call the module with these parameters.

        Raises:
            ParameterError: parameters are missing, unexpected or of the wrong shape.
            ImpureError: the module draws, or changes a buffer: use `apply`.
        """
        return self.call(params, *inputs, **options)


def functional(module: nn.Module | Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Functional:
    """Turn a module into a pure function of its parameters; the module itself is neither kept nor changed.

    Of a factory, `functional(Model, width=8)`, the module is made here with `random.key(0)` and anew by each
    `init(key)`: the constructor's draws are answered from the key, never from the global generator.

    Parameters are a dict by dotted name; a tuple in that order and a nested dict are accepted too. Calls nest and may
    run in several threads at once, each with its own parameters.

    Law: `functional(m)(functional(m).params, x) == m(x)`.

    Raises:
        TypeError: `module` is not an nn.Module that is not scripted, nor a factory of one.
        ParameterError: the module cannot be copied, or has parameters without a shape.
        ImpureError: a function in the module holds the module in its closure, the module holds a generator, or the
            factory draws in a way that has no keyed form.

    >>> net = functional(nn.Linear(2, 1))
    >>> net({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, torch.tensor([1.0, 2.0]))
    tensor([3.])
    """
    factory = partial(module, *args, **kwargs) if _is_factory(module) else None
    traced = any(isinstance(leaf, torch.Tensor) for leaf in tree.leaves((args, kwargs)))
    with (
        torch.inference_mode(False),
        nullcontext() if traced else without_transforms(),
    ):  # else its tensors had no derivatives later
        pool = pool_of(construct(factory, random.key(0)) if factory else _checked(module, args, kwargs))
        params, state = pool.parameters.copies(), pool.buffers.copies()
    return Functional(
        init=partial(fresh, factory, pool) if factory else partial(reset, pool),
        apply=partial(apply, pool),
        params=dict(zip(pool.parameters.names, params, strict=True)),
        state=dict(zip(pool.buffers.names, state, strict=True)),
        trainable=pool.trainable,
        to_module=partial(_to_module, pool),
        runs=pool.runs,
        call=partial(call, pool),
        deterministic=pool.proven,
    )


def _is_factory(module: Any) -> bool:
    return callable(module) and not isinstance(module, nn.Module)


def _checked(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"functional: wanted an nn.Module that is not scripted, got {type(module).__name__}")
    if args or kwargs:
        raise TypeError(
            f"functional: arguments are for a factory, and {type(module).__name__} is a module already: "
            f"functional({type(module).__name__}, …) makes one"
        )
    return module


def make_functional_fwd(module: nn.Module) -> Callable[[Any, Params], Any]:
    """Return the data-first form, `forward(data, params)`, so that `grad(forward)` is with respect to the data.

    Raises:
        TypeError, ParameterError, ImpureError: as `functional`.

    >>> forward = make_functional_fwd(nn.Linear(1, 1))
    >>> forward(torch.ones(1), (torch.tensor([[2.0]]), torch.tensor([1.0])))
    tensor([3.])
    """
    net = functional(module)

    def forward(data: Any, params: Params) -> Any:
        return net.call(params, data)

    return forward


def _to_module(pool: Pool, params: Params | None = None, state: State | None = None) -> nn.Module:
    """Build an ordinary module that holds copies of these values, by default its own.

    Raises:
        ParameterError: parameters or buffers are missing, unexpected or of the wrong shape.
    """
    given = pool.parameters.tensors if params is None else pool.parameters.match(params)
    held = pool.buffers.tensors if state is None else pool.buffers.match(state)
    wants_grad = [name in pool.trainable for name in pool.parameters.names]
    skeleton = pool.make()
    new = [nn.Parameter(value.detach().clone(), flag) for value, flag in zip(given, wants_grad, strict=True)]
    fill(skeleton.parameters, new)
    fill(skeleton.buffers, [buffer.detach().clone() for buffer in held])
    return skeleton.module
