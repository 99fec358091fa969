"""Calling a module so that no draw goes unseen: each is answered from a key, or refused by name.

In eager code the global generator's state is compared before and after: that is cheap and sees every draw. Only when
it has changed is the call repeated under modes that stop at the first draw and name it; they see this thread alone,
so that another thread's draws are never blamed on the module. Where the state cannot be read, inside a transform or a
trace, the first of the modes is there from the start.
"""

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchpure import tree
from torchpure._torch import TorchDispatchMode
from torchpure._types import Key
from torchpure.errors import ImpureError

from ._keyed_mode import DrawError, KeyedDraws, RefuseDraws
from ._per_member import member_flag
from ._which_draw import draws

CALL_ADVICE = "Use net.apply(params, state, *inputs, key=key), or make the module deterministic with .eval()"
APPLY_ADVICE = "Give net.apply a key=, or make the module deterministic with train=False"
_KEYED_ADVICE = "It cannot be answered from the one that was given: draw with torch.rand or its kin"


class _RefuseDrawingOperators(TorchDispatchMode):
    """Raise at the first operator that draws, whatever called it; remember operators that one cannot look into."""

    opaque = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if draws(func, args, kwargs):
            raise DrawError(func.overloadpacket.__name__)
        self.opaque |= func.namespace not in ("aten", "prim", "prims")
        return func(*args, **kwargs)


def refusing_draws(module: nn.Module, call: Callable[[], Any], advice: str, flag: Tensor | None = None) -> Any:
    """Run a call of a module; raise when it draws.

    Raises:
        ImpureError: the call drew from the global generator, whose state is then put back.
    """

    def named() -> Any:
        return _named(module, call, RefuseDraws(flag), advice)

    return _compared(type(module).__name__, call, named, advice) if tree.unwatched() else named()


def keyed_draws(module: nn.Module, call: Callable[[], Any], key: Key, flag: Tensor | None = None) -> Any:
    """Run a call of a module with its draws answered from a key.

    Raises:
        ImpureError: a draw has no keyed form; the global generator's state is then put back.
    """

    def named() -> Any:
        return _named(module, call, KeyedDraws(key, flag), _KEYED_ADVICE)

    return _compared(type(module).__name__, named, named, _KEYED_ADVICE) if tree.unwatched() else named()


def keyed_construction(factory: Callable[[], Any], key: Key) -> Any:
    """Call a factory of modules with its draws answered from a key.

    Raises:
        ImpureError: a draw has no keyed form; the global generator's state is then put back.
    """
    name = getattr(factory, "__name__", "") or getattr(getattr(factory, "func", None), "__name__", "the factory")

    named = partial(keyed_call, f"init: {name}", factory, key)
    return _compared(name, named, named, _KEYED_ADVICE) if tree.unwatched() else named()


def keyed_call(who: str, call: Callable[[], Any], key: Key) -> Any:
    """Run a call that makes or fills a module, with its draws answered from a key; under vmap for each member.

    Raises:
        ImpureError: a draw has no keyed form.
    """
    try:
        with KeyedDraws(key, member_flag(key)):
            return call()
    except DrawError as drawn:
        message = f"{who} draws with `{drawn}`. {_KEYED_ADVICE}"
    raise ImpureError(message)


def _compared(name: str, call: Callable[[], Any], named: Callable[[], Any], advice: str) -> Any:
    before = _generator_state()
    try:
        output = call()
    except Exception:
        if _same(before, _generator_state()):
            raise
    else:
        if _same(before, _generator_state()):
            return output
    return _confirmed(name, named, advice, before)


def _confirmed(name: str, named: Callable[[], Any], advice: str, state: tuple[Any, ...]) -> Any:
    """Repeat a call during which the state changed: by the module, or by another thread."""
    before = _generator_state()
    operators = _RefuseDrawingOperators()
    try:
        with operators:
            output = named()
    except ImpureError:
        _restore(state)
        raise
    after = _generator_state()
    if _seed(state) != _seed(after):
        _restore(state)
        raise ImpureError(f"{name} seeds the global generator, so its call is not pure")
    if operators.opaque and not _same(before, after):
        _restore(state)
        raise ImpureError(_message(name, "a random call", "", advice))
    return output


def _named(module: nn.Module, call: Callable[[], Any], mode: TorchFunctionMode, advice: str) -> Any:
    try:
        with mode:
            return call()
    except DrawError as drawn:
        message = _message(type(module).__name__, f"`{drawn}`", _innermost(module, drawn), advice)
    raise ImpureError(message)


def _message(name: str, call: str, path: str, advice: str) -> str:
    where = f" in `{path}`" if path else ""
    return f"{name} draws random numbers: {call}{where} needs a key. {advice}"


def _innermost(module: nn.Module, error: Exception) -> str:
    """Name the submodule whose forward raised, from the frames on the way to the error."""
    names = {id(sub): name for name, sub in module.named_modules()}
    seen = [names.get(id(frame.f_locals.get("self")), "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((name for name in reversed(seen) if name), "")


def _generator_state() -> tuple[Tensor, bytes, list[int]]:
    """Return the CPU generator's state, what of it changes with every draw, and the CUDA generators' offsets.

    Every draw takes words, which moves the place in the block or renews its first word, or takes the normal value
    that is kept in the tail: a hundred bytes stand for five thousand.
    """
    state = torch.default_generator.get_state()
    words = state.numpy()
    offsets = [one.get_offset() for one in torch.cuda.default_generators] if torch.cuda.is_initialized() else []
    return state, words[:_HEAD].tobytes() + words[_TAIL:].tobytes(), offsets


_HEAD, _TAIL = 40, -48


def _same(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    return before[1:] == after[1:]


def _seed(state: tuple[Any, ...]) -> bytes:
    return state[1][:8]


def _restore(state: tuple[Any, ...]) -> None:
    torch.default_generator.set_state(state[0])
    for generator, offset in zip(torch.cuda.default_generators, state[2], strict=False):
        generator.set_offset(offset)
