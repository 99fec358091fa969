"""Noticing that a module draws random numbers, which a pure function cannot.

In eager code the global generator's state is compared before and after: that is cheap and sees every draw. Only when
it has changed is the call repeated under a mode that stops at the first draw and names it. Where the state cannot
be read, inside a transform or a trace, the mode is there from the start.
"""

import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchpure import tree
from torchpure.errors import ImpureError

CALL_ADVICE = "Use net.apply(params, state, *inputs, key=key), or make the module deterministic with .eval()"
APPLY_ADVICE = "Draws from a key are not available for modules yet: make the module deterministic with .eval()"

_ALWAYS = {
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.rand_like, torch.randn_like, torch.randint_like,
    torch.bernoulli, torch.multinomial, torch.normal, torch.poisson, torch.binomial,
    Tensor.bernoulli, Tensor.multinomial, Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_,
    Tensor.log_normal_, Tensor.normal_, Tensor.random_, Tensor.uniform_,
    F.gumbel_softmax, F.fractional_max_pool2d, F.fractional_max_pool3d,
}  # fmt: skip
_IN_TRAINING = {  # function -> how to tell from its arguments that it draws
    F.dropout: (1, "p", 2),
    F.dropout1d: (1, "p", 2),
    F.dropout2d: (1, "p", 2),
    F.dropout3d: (1, "p", 2),
    F.alpha_dropout: (1, "p", 2),
    F.feature_alpha_dropout: (1, "p", 2),
}


def draws(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether a torch function, called like this, draws from the global generator."""
    if kwargs.get("generator") is not None:
        return False  # the module's own generator: its state is the module's business
    if func in _ALWAYS:
        return True
    if func in _IN_TRAINING:
        position, name, training = _IN_TRAINING[func]
        rate = kwargs.get(name, args[position] if len(args) > position else 0.5)
        default = func is not F.alpha_dropout and func is not F.feature_alpha_dropout
        return bool(rate) and bool(kwargs.get("training", args[training] if len(args) > training else default))
    return _composite_draws(func, args, kwargs)


def _composite_draws(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if func is F.scaled_dot_product_attention:
        return bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0))
    if func is F.multi_head_attention_forward:
        return bool(kwargs.get("training", True)) and bool(kwargs.get("dropout_p", args[10] if len(args) > 10 else 0))
    if func is F.rrelu:
        return bool(kwargs.get("training", args[3] if len(args) > 3 else False))
    if getattr(func, "__name__", "") in ("lstm", "gru", "rnn_tanh", "rnn_relu") and len(args) == 9:
        packed = isinstance(args[3], list | tuple)  # then the weights stand one place further back
        rate, training = args[6:8] if packed else args[5:7]
        return bool(rate) and bool(training)
    return False


class _DrawError(Exception):
    """Carry the name of the call that drew."""


class RefuseDraws(TorchFunctionMode):
    """Raise at the first draw."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let every other call through."""
        kwargs = kwargs or {}
        if draws(func, args, kwargs):
            raise _DrawError(getattr(func, "__name__", str(func)))
        return func(*args, **kwargs)


def refusing_draws(module: nn.Module, call: Callable[[], Any], advice: str) -> Any:
    """Run a call of a module; raise when it draws.

    Raises:
        ImpureError: the call drew from the global generator, whose state is then put back.
    """
    if not tree.unwatched():
        return _named(module, call, advice)
    before = _generator_state()
    output = call()
    return output if _same(before, _generator_state()) else _confirmed(module, call, advice, before)


def _confirmed(module: nn.Module, call: Callable[[], Any], advice: str, state: tuple[Any, ...]) -> Any:
    for _ in range(3):  # another thread may have drawn meanwhile: then one of these calls leaves the state alone
        before = _generator_state()
        try:
            output = _named(module, call, advice)
        except ImpureError:
            _restore(state)
            raise
        if _same(before, _generator_state()):
            return output
    raise ImpureError(_message(module, "a random call", "", advice))


def _named(module: nn.Module, call: Callable[[], Any], advice: str) -> Any:
    try:
        with RefuseDraws():
            return call()
    except _DrawError as drawn:
        message = _message(module, f"`{drawn}`", _innermost(module, drawn), advice)
    raise ImpureError(message)


def _message(module: nn.Module, call: str, path: str, advice: str) -> str:
    where = f" in `{path}`" if path else ""
    return f"{type(module).__name__} draws random numbers: {call}{where} needs a key. {advice}"


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


def _restore(state: tuple[Any, ...]) -> None:
    torch.default_generator.set_state(state[0])
    for generator, offset in zip(torch.cuda.default_generators, state[2], strict=False):
        generator.set_offset(offset)
