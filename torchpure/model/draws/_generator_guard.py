"""Call a module and detect every draw: answer it from a key, or refuse it with its name.

In eager code the state of the global generator is compared before and after the call: this is cheap and detects every
draw. If the state changed, the call is repeated under two modes that stop at the first draw and name it. The modes see
only this thread, so draws of another thread are not reported as the module's. Inside a transform or a trace the state
cannot be read; there the function mode is active from the start.
"""

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchpure import tree
from torchpure._torch import TorchDispatchMode
from torchpure._types import Key
from torchpure.errors import ImpureError
from torchpure.transforms.context import resumable

from ._keyed_mode import DrawError, KeyedDraws, RefuseDraws
from ._per_member import member_flag
from ._which_draw import draws

CALL_ADVICE = "Use net.apply(params, state, *inputs, key=key), or make the module deterministic with .eval()"
APPLY_ADVICE = "Pass a key=, or make the module deterministic: train=False in net.apply, or .eval()"
_KEYED_ADVICE = "The key that was given cannot answer it: draw with torch.rand or a similar function"


class _RefuseDrawingOperators(TorchDispatchMode):
    """Raise at the first aten operator that draws; note whether a custom operator ran, which may draw inside."""

    ran_custom_operator = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if draws(func, args, kwargs):
            raise DrawError(func.overloadpacket.__name__)
        self.ran_custom_operator |= func.namespace not in ("aten", "prim", "prims")
        return func(*args, **kwargs)


def run_refusing_draws(module: nn.Module, call: Callable[[], Any], advice: str, flag: Tensor | None = None) -> Any:
    """Run a call of a module; raise if it draws.

    Raises:
        ImpureError: the call drew from the global generator; the generator's state is restored.
    """

    def run_under_mode() -> Any:
        return _run_under_mode(module, call, RefuseDraws(flag), advice)

    return (
        _run_comparing_state(type(module).__name__, call, run_under_mode, advice)
        if tree.unwatched()
        else run_under_mode()
    )


def run_with_keyed_draws(module: nn.Module, call: Callable[[], Any], key: Key, flag: Tensor | None = None) -> Any:
    """Run a call of a module with random numbers from a key.

    Raises:
        ImpureError: a key cannot answer a draw; the global generator's state is restored.
    """

    def run_under_mode() -> Any:
        return _run_under_mode(module, call, KeyedDraws(key, flag), _KEYED_ADVICE)

    return (
        _run_comparing_state(type(module).__name__, run_under_mode, run_under_mode, _KEYED_ADVICE)
        if tree.unwatched()
        else run_under_mode()
    )


def construct_with_key(factory: Callable[[], Any], key: Key) -> Any:
    """Call a factory of modules with random numbers from a key.

    Raises:
        ImpureError: a key cannot answer a draw; the global generator's state is restored.
    """
    name = getattr(factory, "__name__", "") or getattr(getattr(factory, "func", None), "__name__", "the factory")

    run_under_mode = partial(call_with_key, f"init: {name}", factory, key)
    return (
        _run_comparing_state(name, run_under_mode, run_under_mode, _KEYED_ADVICE)
        if tree.unwatched()
        else run_under_mode()
    )


def call_with_key(caller: str, call: Callable[[], Any], key: Key) -> Any:
    """Run a call that makes or fills a module, with random numbers from a key; under vmap one key per member.

    Raises:
        ImpureError: a key cannot answer a draw.
    """
    try:
        mode = KeyedDraws(key, member_flag(key))
        with mode, resumable(mode):
            return call()
    except DrawError as draw:
        message = f"{caller} draws with `{draw}`. {_KEYED_ADVICE}"
    raise ImpureError(message)


def _run_comparing_state(name: str, call: Callable[[], Any], run_under_mode: Callable[[], Any], advice: str) -> Any:
    before = _generator_state()
    try:
        output = call()
    except Exception:
        if _same_state(before, _generator_state()):
            raise
    else:
        if _same_state(before, _generator_state()):
            return output
    return _repeat_under_modes(name, run_under_mode, advice, before)


def _repeat_under_modes(name: str, run_under_mode: Callable[[], Any], advice: str, state: tuple[Any, ...]) -> Any:
    """Repeat a call during which the generator's state changed, to find out whether this module changed it."""
    before = _generator_state()
    operators = _RefuseDrawingOperators()
    try:
        with operators:
            output = run_under_mode()
    except ImpureError:
        _restore(state)
        raise
    after = _generator_state()
    if _seed(state) != _seed(after):
        _restore(state)
        raise ImpureError(f"{name} seeds the global generator, so its call is not pure")
    if operators.ran_custom_operator and not _same_state(before, after):
        _restore(state)
        raise ImpureError(_draw_message(name, "a random call", "", advice))
    return output


def _run_under_mode(module: nn.Module, call: Callable[[], Any], mode: KeyedDraws | RefuseDraws, advice: str) -> Any:
    try:
        with mode, resumable(mode):
            return call()
    except DrawError as draw:
        message = _draw_message(type(module).__name__, f"`{draw}`", _innermost_submodule(module, draw), advice)
    raise ImpureError(message)


def _draw_message(name: str, call: str, path: str, advice: str) -> str:
    where = f" in `{path}`" if path else ""
    return f"{name} draws random numbers: {call}{where} needs a key. {advice}"


def _innermost_submodule(module: nn.Module, error: Exception) -> str:
    """Name the innermost submodule whose forward raised, from the frames of the traceback."""
    names = {id(sub): name for name, sub in module.named_modules()}
    names_on_stack = [
        names.get(id(frame.f_locals.get("self")), "") for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    return next((name for name in reversed(names_on_stack) if name), "")


def _generator_state() -> tuple[Tensor, bytes, list[int]]:
    """Return the CPU generator's state, the bytes of it that every draw changes, and the CUDA generators' offsets.

    A draw moves the position in the block of words, or replaces the block's first word, or takes the normal value
    that is cached in the tail. So about a hundred bytes are compared instead of five thousand.
    """
    state = torch.default_generator.get_state()
    words = state.numpy()
    offsets = (
        [generator.get_offset() for generator in torch.cuda.default_generators] if torch.cuda.is_initialized() else []
    )
    return state, words[:_HEAD_BYTES].tobytes() + words[_TAIL_BYTES:].tobytes(), offsets


_HEAD_BYTES, _TAIL_BYTES = 40, -48


def _same_state(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    return before[1:] == after[1:]


def _seed(state: tuple[Any, ...]) -> bytes:
    return state[1][:8]


def _restore(state: tuple[Any, ...]) -> None:
    torch.default_generator.set_state(state[0])
    for generator, offset in zip(torch.cuda.default_generators, state[2], strict=False):
        generator.set_offset(offset)
