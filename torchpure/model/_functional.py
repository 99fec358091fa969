"""Turn an unmodified module into a pair of pure functions."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from torchpure import random, tree
from torchpure._types import Key, Params, State
from torchpure.model.copies import Pool, fill, pool_of
from torchpure.transforms.engine import without_transforms
from torchpure.transforms.purity import forward_hooks
from torchpure.tree.summaries import shortened, summary, totals

from ._apply import apply, call
from ._init import construct, initialise, reinitialise


class Apply(Protocol):
    """The type of `Functional.apply`."""

    def __call__(
        self,
        params: Params,
        state: State,
        *inputs: Any,
        key: Key | None = None,
        train: bool | None = None,
        **options: Any,
    ) -> tuple[Any, State]:
        """Call the module with these values and return (output, new state)."""
        ...


class ToModule(Protocol):
    """The type of `Functional.to_module`."""

    def __call__(self, params: Params | None = None, state: State | None = None) -> nn.Module:
        """Build an ordinary module with copies of these values; the default is the initial values."""
        ...


@dataclass(frozen=True, slots=True)
class Functional:
    """A module as a frozen pair of pure functions, with the values that the module had.

    `net(params, *inputs)` calls a module that draws nothing and changes no buffer; `net.apply` is the general form.
    """

    init: Callable[[Key], tuple[Params, State]]
    apply: Apply
    params: dict[str, Tensor]  # detached copies; a tied parameter appears once
    state: State  # the buffers, copied in the same way
    trainable: tuple[str, ...]  # the names of parameters with requires_grad
    to_module: ToModule
    call: Callable[..., Any]
    deterministic: bool = False  # True: its code proves that calls never draw
    name: str = "a module"  # the class name of the module
    forward_hooks: tuple[Callable[..., Any], ...] = ()  # forward hooks: the check for leaks searches what they hold

    def __call__(self, params: Params, *inputs: Any, **options: Any) -> Any:
        """Call the module with these parameters.

        Raises:
            ParameterError: parameters are missing, unexpected or of the wrong shape.
            ImpureError: the module draws or changes a buffer: use `apply`.
            TypeError: `key` or `train` is given, which are arguments of `apply`.
        """
        try:
            return self.call(params, *inputs, **options)
        except TypeError as error:
            given = [name for name in ("key", "train") if f"unexpected keyword argument '{name}'" in str(error)]
            if not given or given[0] not in options:
                raise
            raise TypeError(
                f"{self.name}.forward takes no `{given[0]}`, and net(params, *inputs) calls a module that draws "
                "nothing: net.apply(params, state, *inputs, key=key, train=True) returns (output, state)"
            ) from None

    def __repr__(self) -> str:
        first, *shapes = summary(self.params)
        frozen = [name for name in self.params if name not in self.trainable]
        lines = [f"Functional of {self.name}: {first.replace('number', 'parameter', 1)}", *shapes]
        if frozen:
            lines.append(f"  frozen: {', '.join(frozen)}")
        if self.state:
            lines.append(f"  state: {totals(self.state)}: {', '.join(self.state)}")
        return "\n".join(shortened(lines, 12))


def functional(module: nn.Module | Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Functional:
    """Turn a module into a pure function of its parameters; the module itself is neither kept nor changed.

    A factory is accepted too: `functional(Model, width=8)` calls it here with `random.key(0)`, and again in each
    `init(key)`. The constructor takes its random numbers from the key, never from the global generator.

    Parameters are a dict by dotted name; a tuple in the same order and a nested dict are accepted too. Calls may nest
    and may run in several threads at once, each with its own parameters.

    Law: `functional(m)(functional(m).params, x) == m(x)`.

    Raises:
        TypeError: `module` is not an nn.Module or a factory of one, or it is scripted.
        ParameterError: the module cannot be copied, or a parameter has no shape yet, or a hook on its gradient.
        ImpureError: a function in the module holds the module in its closure, the module holds a generator, or the
            factory makes a draw that a key cannot answer.

    >>> net = functional(nn.Linear(2, 1))
    >>> net({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, torch.tensor([1.0, 2.0]))
    tensor([3.])
    """
    if _is_factory(module):
        _check_factory(module, args, kwargs)
    factory = partial(module, *args, **kwargs) if _is_factory(module) else None
    has_tensor_arguments = any(isinstance(leaf, torch.Tensor) for leaf in tree.leaves((args, kwargs)))
    # tensors made in inference mode or inside a transform would have no derivatives later
    with torch.inference_mode(False), nullcontext() if has_tensor_arguments else without_transforms():
        made = construct(factory, random.key(0)) if factory else _check_module(module, args, kwargs)
        pool = pool_of(made)
        params, state = pool.parameters.clones(), pool.buffers.clones()
    return Functional(
        init=partial(initialise, factory, pool) if factory else partial(reinitialise, pool),
        apply=partial(apply, pool),
        params=dict(zip(pool.parameters.names, params, strict=True)),
        state=dict(zip(pool.buffers.names, state, strict=True)),
        trainable=pool.trainable,
        to_module=partial(_to_module, pool),
        call=partial(call, pool),
        deterministic=pool.never_draws,
        name=type(made).__name__,
        forward_hooks=forward_hooks(made),
    )


def _check_factory(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        wanted = inspect.signature(module)
    except (ValueError, TypeError):  # a function written in C has no signature
        return
    try:
        wanted.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(module, "__name__", type(module).__name__)
        raise TypeError(
            f"functional: wanted an nn.Module or what makes one, got {name}{wanted}: {error}; "
            "a function of parameters is pure already: pass it to tp.grad or tp.fit as it is"
        ) from None


def _is_factory(module: Any) -> bool:
    return callable(module) and not isinstance(module, nn.Module)


def _check_module(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"functional: wanted an nn.Module that is not scripted, got {type(module).__name__}")
    if args or kwargs:
        raise TypeError(
            f"functional: arguments are for a factory, but {type(module).__name__} is a module already: "
            f"pass the class, functional({type(module).__name__}, …)"
        )
    return module


def make_functional_fwd(module: nn.Module) -> Callable[[Any, Params], Any]:
    """Return the data-first form `forward(data, params)`: `grad(forward)` differentiates with respect to the data.

    Raises:
        TypeError, ParameterError, ImpureError: as in `functional`.

    >>> forward = make_functional_fwd(nn.Linear(1, 1))
    >>> forward(torch.ones(1), (torch.tensor([[2.0]]), torch.tensor([1.0])))
    tensor([3.])
    """
    net = functional(module)

    def forward(data: Any, params: Params) -> Any:
        return net.call(params, data)

    return forward


def _to_module(pool: Pool, params: Params | None = None, state: State | None = None) -> nn.Module:
    """Build an ordinary module that holds copies of these values; the default is the initial values.

    Raises:
        ParameterError: parameters or buffers are missing, unexpected or of the wrong shape.
    """
    given = pool.parameters.tensors if params is None else pool.parameters.match(params)
    buffers = pool.buffers.tensors if state is None else pool.buffers.match(state)
    wants_grad = [name in pool.trainable for name in pool.parameters.names]
    skeleton = pool.make()
    new = [
        nn.Parameter(value.detach().clone(), requires_grad)
        for value, requires_grad in zip(given, wants_grad, strict=True)
    ]
    fill(skeleton.parameters, new)
    fill(skeleton.buffers, [buffer.detach().clone() for buffer in buffers])
    return skeleton.module
