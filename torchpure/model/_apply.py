"""Call a module with given parameters and buffers; refuse a call that is not pure."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from torchpure import random, tree
from torchpure._types import Key, Params, State
from torchpure.errors import ImpureError
from torchpure.model.copies import Pool, RunningCall, Skeleton, fill
from torchpure.model.draws import (
    APPLY_ADVICE,
    CALL_ADVICE,
    member_flag,
    per_member,
    run_refusing_draws,
    run_with_keyed_draws,
)
from torchpure.transforms.context import resumable
from torchpure.transforms.engine import without_function_modes

from ._apply_compiled import apply_compiled, call_compiled

_PLAIN_TYPES = {Tensor, nn.Parameter}
# torch's errors when vmap writes a batched value in place into a tensor that all members share
_SHARED_WRITE_ERRORS = (
    "running_mean or running_var",
    "is not possible because there exists a Tensor",
    "doesn't match the broadcast shape",
)
_BUFFER_WRITE_ERRORS = ("mutate a captured Tensor", *_SHARED_WRITE_ERRORS)


def call(pool: Pool, params: Params, *inputs: Any, **options: Any) -> Any:
    """Call a module that draws nothing and changes no buffer."""
    parameters = pool.parameters.match(params)
    may_draw = _may_draw(pool, inputs, options)
    if is_dynamo_compiling():
        return call_compiled(pool, parameters, inputs, options, may_draw)
    skeleton = pool.take()
    running = RunningCall(skeleton)
    fill(skeleton.parameters, parameters)
    versions = _input_versions(inputs, may_draw)
    with resumable(running):
        if not may_draw and not skeleton.buffers:
            output = skeleton.module(*inputs, **options)
        else:
            before = _versions(parameters)
            forward = partial(skeleton.module, *inputs, **options)
            run = partial(_run_forward, skeleton, None, CALL_ADVICE, may_draw, forward)
            output = _retry_per_member(skeleton, (parameters, inputs, options), run)
            _check_parameters(pool, parameters, before)
            _check_buffers(pool, skeleton)
    _check_inputs(pool, _input_versions(inputs, may_draw), versions)
    running.give_back(pool)  # not reached if forward raised: the copy may then be inconsistent
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
    """Call the module and return (output, new state); `params` and `state` do not change.

    Random numbers come from `key`: the same key gives the same numbers, and under vmap each member gets its own.
    `train=True` or `False` sets the mode of every submodule for this call; None keeps their modes. If the forward
    has inputs named `key` or `train`, pass them by position.

    Laws: `vmap(apply)(…, keys)[i] == apply(…, keys[i])`; the global generator is the same before and after.

    Raises:
        ParameterError: parameters or buffers are missing, unexpected or of the wrong shape.
        ImpureError: the module draws without a key, or makes a draw that a key cannot answer.
        TypeError: `key` is not a key, or `train` is not a bool.
    """
    pool = pool.in_mode(train)
    parameters = pool.parameters.match(params)
    buffers = pool.buffers.match(state)
    if key is not None:
        random.check_key(key, "apply")
    may_draw = _may_draw(pool, inputs, options)
    if is_dynamo_compiling():
        return apply_compiled(pool, parameters, buffers, inputs, options, key if may_draw else None, may_draw)
    before, versions = _versions(parameters), _input_versions(inputs, may_draw)
    skeleton = pool.take()
    running = RunningCall(skeleton)
    fill(skeleton.parameters, parameters)

    def run(flag: Tensor | None) -> Any:
        def forward() -> Any:
            fill(skeleton.buffers, [per_member(flag, buffer).clone() for buffer in buffers])
            return skeleton.module(*inputs, **options)

        return _run_forward(skeleton, key, APPLY_ADVICE, may_draw, forward, flag)

    with resumable(running):
        output = _retry_per_member(skeleton, (parameters, buffers, inputs, options, key), run)
    _check_parameters(pool, parameters, before)
    _check_inputs(pool, _input_versions(inputs, may_draw), versions)
    after = {number: holder[name] for holder, name, number in skeleton.buffers}
    running.give_back(pool)
    return output, {name: after[number] for number, name in enumerate(pool.buffers.names)}


def _may_draw(pool: Pool, inputs: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Return whether a call may draw: the proof of the opposite covers calls with plain tensors only."""
    return not pool.never_draws or bool(options) or not _PLAIN_TYPES.issuperset(map(type, inputs))


def _run_forward(
    skeleton: Skeleton, key: Key | None, advice: str, may_draw: bool, forward: Callable[[], Any], flag: Tensor | None
) -> Any:
    if not may_draw and flag is None:
        return forward()
    if key is None:
        return run_refusing_draws(skeleton.module, forward, advice, flag)
    return run_with_keyed_draws(skeleton.module, forward, key, flag)


def _retry_per_member(skeleton: Skeleton, values: Any, run: Callable[[Tensor | None], Any]) -> Any:
    """Run a forward; if it writes into a tensor that vmap members share, run again with a copy for each member."""
    try:
        try:
            return run(None)
        except RuntimeError as error:
            flag = member_flag(values) if any(text in str(error) for text in _SHARED_WRITE_ERRORS) else None
            if flag is None:
                raise
        return run(flag)
    except RuntimeError as error:
        if not skeleton.buffers or not any(text in str(error) for text in _BUFFER_WRITE_ERRORS):
            raise
        raise ImpureError(
            f"{type(skeleton.module).__name__} changes a buffer inside a transform: "
            "use net.apply(params, state, *inputs) with the state as an argument of the transform, or eval mode"
        ) from error


def _versions(values: Sequence[Any]) -> list[int]:
    with without_function_modes():
        try:
            return [value._version for value in values]
        except RuntimeError:  # inference tensors have no version counter
            return [value._version for value in values if not value.is_inference()]


def _input_versions(inputs: tuple[Any, ...], may_draw: bool) -> list[int]:
    """List the versions of the plain tensors in the inputs; skip subclasses, because reading one runs its code."""
    return _versions([leaf for leaf in tree.leaves(inputs) if type(leaf) in _PLAIN_TYPES] if may_draw else inputs)


def _check_parameters(pool: Pool, parameters: list[Tensor], before: list[int]) -> None:
    after = _versions(parameters)
    if after != before:
        changed = next(name for name, old, new in zip(pool.parameters.names, before, after, strict=True) if old != new)
        raise ImpureError(
            f"{type(pool.template).__name__} changes its parameter `{changed}` in place, so its call is not pure, "
            "and the value that was given has changed: change parameters between calls, on a copy"
        )


def _check_buffers(pool: Pool, skeleton: Skeleton) -> None:
    changed = pool.changed_buffers(skeleton)
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
            "tensor that was given has changed: set inplace=False in the first layer, or pass a clone"
        )
