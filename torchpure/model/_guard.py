"""Noticing that a module draws random numbers, which a pure function cannot.

In eager code the global generator's state is compared before and after: that is cheap and sees every draw. Only when
it has changed is the call repeated under modes that stop at the first draw and name it; they see this thread alone,
so that another thread's draws are never blamed on the module. Where the state cannot be read, inside a transform or a
trace, the first of the modes is there from the start.
"""

import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from torchpure import tree
from torchpure.errors import ImpureError

CALL_ADVICE = "Use net.apply(params, state, *inputs, key=key), or make the module deterministic with .eval()"
APPLY_ADVICE = "Draws from a key are not available for modules yet: make the module deterministic with .eval()"

_ALWAYS = {
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.rand_like, torch.randn_like, torch.randint_like,
    torch.bernoulli, torch.multinomial, torch.normal, torch.poisson, torch.binomial,
    torch._standard_gamma, torch._sample_dirichlet,
    Tensor.bernoulli, Tensor.multinomial, Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_,
    Tensor.log_normal_, Tensor.normal_, Tensor.random_, Tensor.uniform_,
    nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_, F.gumbel_softmax,
}  # fmt: skip

_Place = tuple[int, str, Any]  # of an argument: its position, name and default
_RATE, _TRAIN = (1, "p", 0.5), (2, "train", False)
_UNLESS_FALSE: dict[Any, tuple[_Place, ...]] = {  # function -> the arguments that must all be true for it to draw
    F.dropout: (_RATE, (2, "training", True)),
    F.dropout1d: (_RATE, (2, "training", True)),
    F.dropout2d: (_RATE, (2, "training", True)),
    F.dropout3d: (_RATE, (2, "training", True)),
    F.alpha_dropout: (_RATE, (2, "training", False)),
    F.feature_alpha_dropout: (_RATE, (2, "training", False)),
    torch.dropout: (_RATE, _TRAIN),
    torch.dropout_: (_RATE, _TRAIN),
    torch.native_dropout: (_RATE, (2, "train", True)),
    torch.alpha_dropout: (_RATE, _TRAIN),
    torch.alpha_dropout_: (_RATE, _TRAIN),
    torch.feature_dropout: (_RATE, _TRAIN),
    torch.feature_dropout_: (_RATE, _TRAIN),
    torch.feature_alpha_dropout: (_RATE, _TRAIN),
    torch.feature_alpha_dropout_: (_RATE, _TRAIN),
    F.rrelu: ((3, "training", False),),
    torch.rrelu: ((3, "training", False),),
    torch.rrelu_: ((3, "training", False),),
    getattr(torch._C._nn, "rrelu_with_noise"): ((4, "training", False),),  # noqa: B009  not in torch's own stubs
    getattr(torch._C._nn, "rrelu_with_noise_"): ((4, "training", False),),  # noqa: B009
    F.scaled_dot_product_attention: ((4, "dropout_p", 0.0),),
    F.multi_head_attention_forward: ((10, "dropout_p", 0.0), (13, "training", True)),
}
_FRACTIONAL = {  # they draw unless they are given what would be drawn
    F.fractional_max_pool2d,
    F.fractional_max_pool3d,
    F.fractional_max_pool2d_with_indices,
    F.fractional_max_pool3d_with_indices,
}
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


def draws(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a torch function, called like this, draws from the global generator."""
    if kwargs.get("generator") is not None:
        return False  # the module's own generator: its state is the module's business
    if isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return _operator_draws(func, args, kwargs)
    if func in _UNLESS_FALSE:
        return all(_argument(place, args, kwargs) for place in _UNLESS_FALSE[func])
    if func in _FRACTIONAL:
        return _argument((5, "_random_samples", None), args, kwargs) is None
    if getattr(func, "__name__", "") in _RECURRENT and len(args) == 9:
        packed = isinstance(args[3], list | tuple)  # then the weights stand one place further back
        return all(args[6:8] if packed else args[5:7])
    return func in _ALWAYS


def _argument(place: _Place, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    position, name, default = place
    return kwargs.get(name, args[position] if len(args) > position else default)


def _operator_draws(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell the same of an operator, which torch itself marks when it may draw."""
    if isinstance(operator, torch._ops.OpOverloadPacket):
        return any(_operator_draws(getattr(operator, name), args, kwargs) for name in operator.overloads())
    if torch.Tag.nondeterministic_seeded not in operator.tags:
        return False
    places = [
        (position, argument.name, argument.default_value)
        for position, argument in enumerate(operator._schema.arguments)
        if argument.name in ("train", "training", "dropout_p", "dropout")
    ]
    values = [_argument(place, args, kwargs) for place in places]
    return all(value is None or value for value in values)


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


class _RefuseDrawingOperators(TorchDispatchMode):
    """Raise at the first operator that draws, whatever called it; remember operators that one cannot look into."""

    opaque = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if draws(func, args, kwargs):
            raise _DrawError(func.overloadpacket.__name__)
        self.opaque |= func.namespace not in ("aten", "prim", "prims")
        return func(*args, **kwargs)


def refusing_draws(module: nn.Module, call: Callable[[], Any], advice: str) -> Any:
    """Run a call of a module; raise when it draws.

    Raises:
        ImpureError: the call drew from the global generator, whose state is then put back.
    """
    if not tree.unwatched():
        return _named(module, call, advice)
    before = _generator_state()
    try:
        output = call()
    except Exception:
        if _same(before, _generator_state()):
            raise
    else:
        if _same(before, _generator_state()):
            return output
    return _confirmed(module, call, advice, before)


def _confirmed(module: nn.Module, call: Callable[[], Any], advice: str, state: tuple[Any, ...]) -> Any:
    """Repeat a call during which the state changed: by the module, or by another thread."""
    before = _generator_state()
    operators = _RefuseDrawingOperators()
    try:
        with operators:
            output = _named(module, call, advice)
    except ImpureError:
        _restore(state)
        raise
    after = _generator_state()
    if _seed(state) != _seed(after):
        _restore(state)
        raise ImpureError(f"{type(module).__name__} seeds the global generator, so its call is not pure")
    if operators.opaque and not _same(before, after):
        _restore(state)
        raise ImpureError(_message(module, "a random call", "", advice))
    return output


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


def _seed(state: tuple[Any, ...]) -> bytes:
    return state[1][:8]


def _restore(state: tuple[Any, ...]) -> None:
    torch.default_generator.set_state(state[0])
    for generator, offset in zip(torch.cuda.default_generators, state[2], strict=False):
        generator.set_offset(offset)
