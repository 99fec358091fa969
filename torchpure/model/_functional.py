"""An unmodified module as a pair of pure functions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from torchpure import random
from torchpure._types import Key, Params, State
from torchpure.errors import ImpureError

from ._guard import APPLY_ADVICE, CALL_ADVICE, RefuseDraws, refusing_draws
from ._init import reset
from ._skeleton import Pool, Skeleton, fill


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

    def __call__(self, params: Params, *inputs: Any, **options: Any) -> Any:
        """Call the module with these parameters.

        Raises:
            ParameterError: parameters are missing, unexpected or of the wrong shape.
            ImpureError: the module draws, or changes a buffer: use `apply`.
        """
        return self.call(params, *inputs, **options)


def functional(module: nn.Module) -> Functional:
    """Turn a module into a pure function of its parameters; the module itself is neither kept nor changed.

    Parameters are a dict by dotted name; a tuple in that order and a nested dict are accepted too. Calls nest and may
    run in several threads at once, each with its own parameters.

    Law: `functional(m)(functional(m).params, x) == m(x)`.

    Raises:
        TypeError: `module` is not an nn.Module, or is a scripted one.
        ParameterError: the module cannot be copied, or has parameters without a shape.
        ImpureError: a function in the module holds the module in its closure.

    >>> net = functional(nn.Linear(2, 1))
    >>> net({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, torch.tensor([1.0, 2.0]))
    tensor([3.])
    """
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"functional: wanted an nn.Module that is not scripted, got {type(module).__name__}")
    with torch.inference_mode(False):  # its tensors could not be differentiated later
        pool = Pool(module)
        params, state = pool.parameters.copies(), pool.buffers.copies()
    return Functional(
        init=partial(_init, pool),
        apply=partial(_apply, pool),
        params=dict(zip(pool.parameters.names, params, strict=True)),
        state=dict(zip(pool.buffers.names, state, strict=True)),
        trainable=pool.trainable,
        to_module=partial(_to_module, pool),
        call=partial(_call, pool),
    )


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


def _call(pool: Pool, params: Params, *inputs: Any, **options: Any) -> Any:
    given = pool.parameters.match(params)
    if is_dynamo_compiling():
        return _traced_call(pool, given, inputs, options)
    skeleton = pool.take()
    fill(skeleton.parameters, given)
    watched = _watched(pool, inputs, options)
    if not watched and not skeleton.buffers:
        output = skeleton.module(*inputs, **options)
    else:
        versions = _versions(given)
        output = _guarded(watched, skeleton, partial(skeleton.module, *inputs, **options), CALL_ADVICE)
        _check_parameters(pool, given, versions)
        _check_buffers(pool, skeleton)
    fill(skeleton.parameters, pool.parameters.tensors)
    pool.give_back(skeleton)  # one whose forward raised is not: it may be half changed
    return output


def _watched(pool: Pool, inputs: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Tell whether a call may draw: the proof holds for tensors alone, since a function given as an input may."""
    return not pool.proven or bool(options) or not _ORDINARY.issuperset(map(type, inputs))


_ORDINARY = {Tensor, nn.Parameter}


def _versions(values: list[Tensor]) -> list[int]:
    try:
        return [value._version for value in values]
    except RuntimeError:  # tensors of inference mode do not count their changes
        return []


def _check_parameters(pool: Pool, given: list[Tensor], before: list[int]) -> None:
    after = _versions(given)
    if after != before:
        changed = next(name for name, old, new in zip(pool.parameters.names, before, after, strict=True) if old != new)
        raise ImpureError(
            f"{type(pool.template).__name__} changes its parameter `{changed}` in place, so its call is not pure, "
            "and the value that was given has changed: do that between calls, on a copy"
        )


def _check_buffers(pool: Pool, skeleton: Skeleton) -> None:
    changed = pool.changed(skeleton)
    if changed:
        raise ImpureError(
            f"{type(skeleton.module).__name__} changes its buffer `{changed[0]}`, so its call is not pure: "
            "use net.apply(params, state, *inputs), which returns the new state, or eval mode"
        )


def _apply(
    pool: Pool, params: Params, state: State, *inputs: Any, key: Key | None = None, **options: Any
) -> tuple[Any, State]:
    """Call the module: (output, new state); neither `params` nor `state` is changed.

    Raises:
        ParameterError: parameters or buffers are missing, unexpected or of the wrong shape.
        ImpureError: the module draws random numbers.
    """
    given = pool.parameters.match(params)
    held = pool.buffers.match(state)
    skeleton = pool.take()
    fill(skeleton.parameters, given)

    def call() -> Any:
        fill(skeleton.buffers, [buffer.clone() for buffer in held])
        return skeleton.module(*inputs, **options)

    versions = _versions(given)
    output = _guarded(_watched(pool, inputs, options), skeleton, call, APPLY_ADVICE)
    _check_parameters(pool, given, versions)
    after = {number: own[name] for own, name, number in skeleton.buffers}
    fill(skeleton.parameters, pool.parameters.tensors)
    fill(skeleton.buffers, skeleton.working)
    pool.give_back(skeleton)
    return output, {name: after[number] for number, name in enumerate(pool.buffers.names)}


def _guarded(watched: bool, skeleton: Skeleton, call: Callable[[], Any], advice: str) -> Any:
    try:
        return refusing_draws(skeleton.module, call, advice) if watched else call()
    except RuntimeError as error:
        if not skeleton.buffers or not any(sign in str(error) for sign in _BUFFER_SIGNS):
            raise
        raise ImpureError(
            f"{type(skeleton.module).__name__} changes a buffer inside a transform: "
            "use net.apply(params, state, *inputs) with the state as an argument of the transform, or eval mode"
        ) from error


_BUFFER_SIGNS = ("mutate a captured Tensor", "running_mean or running_var", "vmap: inplace arithmetic")


def _traced_call(pool: Pool, given: list[Tensor], inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Call the template under torch.compile, which knows functional_call and can trace no skeletons."""
    for name, sub in pool.template.named_modules():
        if getattr(sub, "running_mean", None) is not None and sub.training:
            raise ImpureError(
                f"{type(pool.template).__name__} changes the buffers of `{name}`, so its call is not pure: "
                "use eval mode, or compile a function of the state that calls net.apply outside"
            )
    if pool.names_draw:
        raise ImpureError(
            f"{type(pool.template).__name__} names a random call, which a pure call cannot make: pass it in"
        )
    values = dict(zip(pool.parameters.names, given, strict=True))
    values |= dict(zip(pool.buffers.names, pool.buffers.copies(), strict=True))
    if not _watched(pool, inputs, options):
        return torch.func.functional_call(pool.template, values, inputs, options)
    with RefuseDraws():
        return torch.func.functional_call(pool.template, values, inputs, options)


def _init(pool: Pool, key: Key) -> tuple[dict[str, Tensor], State]:
    """Draw fresh parameters and buffers from a key, distributed as the module's constructor would.

    Law: `vmap(init)(keys)[i] == init(keys[i])`.

    Raises:
        ImpureError: a submodule does not say how to fill its parameters, or fills them in a way that has no keyed form.
    """
    skeleton = pool.make()
    either = random.fold_in(key, 0)[0] >= 0  # whatever it is: under vmap it makes the copies the member's own
    for slots, values in ((skeleton.parameters, pool.parameters), (skeleton.buffers, pool.buffers)):
        # what nothing refills keeps the module's value
        fill(slots, [torch.where(either.to(value.device), value, value) for value in values.tensors])
    with torch.no_grad():
        reset(skeleton.module, key)
    parameters = {number: own[name].detach() for own, name, number in skeleton.parameters}
    buffers = {number: own[name].detach() for own, name, number in skeleton.buffers}
    return (
        {name: parameters[number] for number, name in enumerate(pool.parameters.names)},
        {name: buffers[number] for number, name in enumerate(pool.buffers.names)},
    )


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
