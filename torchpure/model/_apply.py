"""Calling a module with given parameters and buffers, and noticing whatever would make the call impure."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from torchpure import random, tree
from torchpure._types import Key, Params, State
from torchpure.errors import ImpureError
from torchpure.model.copies import Pool, Skeleton, fill
from torchpure.model.draws import APPLY_ADVICE, CALL_ADVICE, keyed_draws, member_flag, own, refusing_draws
from torchpure.transforms.engine import without_function_modes

from ._apply_compiled import traced_apply, traced_call

_ORDINARY = {Tensor, nn.Parameter}
# what torch says of an in-place change, by a value that differs between members, of what all share
_SHARED = (
    "running_mean or running_var",
    "is not possible because there exists a Tensor",
    "doesn't match the broadcast shape",
)
_BUFFER_SIGNS = ("mutate a captured Tensor", *_SHARED)


def call(pool: Pool, params: Params, *inputs: Any, **options: Any) -> Any:
    """Call a module that draws nothing and changes no buffer."""
    given = pool.parameters.match(params)
    watched = _watched(pool, inputs, options)
    if is_dynamo_compiling():
        return traced_call(pool, given, inputs, options, watched)
    skeleton = pool.take()
    fill(skeleton.parameters, given)
    versions = _input_versions(inputs, watched)
    if not watched and not skeleton.buffers:
        output = skeleton.module(*inputs, **options)
    else:
        before = _versions(given)
        forward = partial(skeleton.module, *inputs, **options)
        run = partial(_run, skeleton, None, CALL_ADVICE, watched, forward)
        output = _with_own(skeleton, (given, inputs, options), run)
        _check_parameters(pool, given, before)
        _check_buffers(pool, skeleton)
    _check_inputs(pool, _input_versions(inputs, watched), versions)
    fill(skeleton.parameters, pool.parameters.tensors)
    pool.give_back(skeleton)  # one whose forward raised is not: it may be half changed
    return output


def apply(
    pool: Pool,
    params: Params,
    state: State,
    *inputs: Any,
    key: Key | None = None,
    train: bool | None = None,
    **options: Any,
) -> tuple[Any, State]:
    """Call the module: (output, new state); neither `params` nor `state` is changed.

    Draws are answered from `key`: the same key gives the same numbers, and under vmap each member its own. `train`
    puts every submodule into that mode for this call, and None keeps the modes that they had. Inputs of a forward
    that have these names are given by position.

    Laws: `vmap(apply)(…, keys)[i] == apply(…, keys[i])`; the global generator is the same before and after.

    Raises:
        ParameterError: parameters or buffers are missing, unexpected or of the wrong shape.
        ImpureError: the module draws and there is no key, or in a way that has no keyed form.
        TypeError: `key` is not a key, or `train` not a bool.
    """
    pool = pool.in_mode(train)
    given = pool.parameters.match(params)
    held = pool.buffers.match(state)
    if key is not None:
        random.check_key(key, "apply")
    watched = _watched(pool, inputs, options)
    if is_dynamo_compiling():
        return traced_apply(pool, given, held, inputs, options, key if watched else None, watched)
    before, versions = _versions(given), _input_versions(inputs, watched)
    skeleton = pool.take()
    fill(skeleton.parameters, given)

    def run(flag: Tensor | None) -> Any:
        def forward() -> Any:
            fill(skeleton.buffers, [own(flag, buffer).clone() for buffer in held])
            return skeleton.module(*inputs, **options)

        return _run(skeleton, key, APPLY_ADVICE, watched, forward, flag)

    output = _with_own(skeleton, (given, held, inputs, options, key), run)
    _check_parameters(pool, given, before)
    _check_inputs(pool, _input_versions(inputs, watched), versions)
    after = {number: own[name] for own, name, number in skeleton.buffers}
    fill(skeleton.parameters, pool.parameters.tensors)
    fill(skeleton.buffers, skeleton.working)
    pool.give_back(skeleton)
    return output, {name: after[number] for number, name in enumerate(pool.buffers.names)}


def _watched(pool: Pool, inputs: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Tell whether a call may draw: the proof holds for tensors alone, since a function given as an input may."""
    return not pool.proven or bool(options) or not _ORDINARY.issuperset(map(type, inputs))


def _run(
    skeleton: Skeleton, key: Key | None, advice: str, watched: bool, forward: Callable[[], Any], flag: Tensor | None
) -> Any:
    if not watched and flag is None:
        return forward()
    if key is None:
        return refusing_draws(skeleton.module, forward, advice, flag)
    return keyed_draws(skeleton.module, forward, key, flag)


def _with_own(skeleton: Skeleton, witnesses: Any, run: Callable[[Tensor | None], Any]) -> Any:
    """Run a forward; when under vmap it changes in place what all members share, again with each member's own."""
    try:
        try:
            return run(None)
        except RuntimeError as error:
            flag = member_flag(witnesses) if any(sign in str(error) for sign in _SHARED) else None
            if flag is None:
                raise
        return run(flag)
    except RuntimeError as error:
        if not skeleton.buffers or not any(sign in str(error) for sign in _BUFFER_SIGNS):
            raise
        raise ImpureError(
            f"{type(skeleton.module).__name__} changes a buffer inside a transform: "
            "use net.apply(params, state, *inputs) with the state as an argument of the transform, or eval mode"
        ) from error


def _versions(values: Sequence[Any]) -> list[int]:
    with without_function_modes():
        try:
            return [value._version for value in values]
        except RuntimeError:  # tensors of inference mode do not count their changes
            return [value._version for value in values if not value.is_inference()]


def _input_versions(inputs: tuple[Any, ...], watched: bool) -> list[int]:
    """Read the versions of the tensors among the inputs: of ordinary ones, since asking a subclass runs its code."""
    return _versions([leaf for leaf in tree.leaves(inputs) if type(leaf) in _ORDINARY] if watched else inputs)


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


def _check_inputs(pool: Pool, after: list[int], before: list[int]) -> None:
    if after != before:
        number = next(i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)
        raise ImpureError(
            f"{type(pool.template).__name__} changes its input {number} in place, so its call is not pure, and the "
            "tensor that was given has changed: give the first layer inplace=False, or a clone"
        )
