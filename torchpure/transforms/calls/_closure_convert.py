"""What the functions of loops and branches capture: found, and handed to them as arguments.

A tensor that a transform, autograd or a tracer follows means nothing inside of an operation, which runs its functions
on tensors of other levels. So the function is run once to see which tensors it uses that it was not given; they become
arguments, and take the place of the captured ones whenever it runs.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torchpure import tree
from torchpure._torch import (
    FakeTensor,
    custom_function_call,
    disable_proxy_modes_tracing,
    get_proxy_mode,
    get_proxy_slot,
    get_sequence_nr,
    len_torch_dispatch_stack,
)
from torchpure.transforms.context import Around, quiet
from torchpure.transforms.engine import current_level, expose, functorch, innermost

_proxy_of: Any = get_proxy_slot


class _Here(threading.local):
    def __init__(self) -> None:
        self.counts: list[int] = []  # of tracers, where functions run: one that is at work is not among them


_here = _Here()
_count = len_torch_dispatch_stack


class _Mode(TorchFunctionMode):
    """Looks at each tensor that goes into an operation of torch."""

    parts: tuple[str, ...]  # of an autograd.Function, that this mode is on in

    def __enter__(self) -> Any:
        _here.counts.append(_count())
        return super().__enter__()

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        _here.counts.pop()
        super().__exit__(exc_type, exc_val, exc_tb)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (
            _here.counts and _count() < _here.counts[-1]
        ):  # a tracer at work on what transforms have unwrapped: no call of the function
            return func(*args, **(kwargs or {}))
        args, kwargs = self._mapped(args), self._mapped(kwargs or {})
        if func is custom_function_call:  # this mode is off in there
            args = (_within(self, args[0]), *args[1:])
        out = func(*args, **kwargs)
        self.know(out)
        return out

    def know(self, values: Any) -> None:
        """Remember tensors that were made inside."""

    @contextmanager
    def inside(self, args: Any) -> Iterator[None]:
        """Be on inside of an operation too, which got these arguments."""
        with self:
            yield

    def look(self, leaf: Tensor) -> Tensor:
        """Return what a tensor stands for."""
        raise NotImplementedError

    def results(self, values: Any) -> Any:
        """Look at what the function returns: a captured tensor may go out as it is."""
        return self._mapped(values)

    def _mapped(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.look(value)
        if type(value) in {tuple, list}:
            return type(value)(map(self._mapped, value))
        if isinstance(value, dict):
            return {name: self._mapped(part) for name, part in value.items()}
        return value


def _within(mode: _Mode, operation: Any) -> Any:
    """Return an autograd.Function whose parts run under a mode."""

    def under(part: Callable[..., Any]) -> Any:
        def run(*args: Any) -> Any:
            with mode.inside(args):
                return part(*args)

        return staticmethod(run)

    own = {name: getattr(operation, name) for name in mode.parts}
    parts = {name: under(part) for name, part in own.items() if part is not getattr(torch.autograd.Function, name)}
    return type(operation.__name__, (operation,), parts)


class _Finding(_Mode):
    """Collects the tensors from outside that something follows."""

    parts = ("forward", "vmap")  # rules use what they have saved, which was made inside

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.found: dict[int, tuple[Tensor, Tensor]] = {}  # with what functions around put in their places
        self._known = set(map(id, given))
        self.level = current_level()
        self._since = get_sequence_nr()
        mode: Any = get_proxy_mode()
        self.tracer = None if mode is None else mode.tracer

    def know(self, values: Any) -> None:
        self._known.update(id(leaf) for leaf in tree.leaves(values) if isinstance(leaf, Tensor))

    @contextmanager
    def inside(self, args: Any) -> Iterator[None]:
        self.know(args)
        outer, self.level = self.level, current_level()
        with self:
            yield
        self.level = outer

    def look(self, leaf: Tensor) -> Tensor:
        if id(leaf) not in self._known and id(leaf) not in self.found:
            now = expose(leaf)
            if self._followed(now):
                self.found[id(leaf)] = (leaf, now)
        return leaf

    def _followed(self, leaf: Tensor) -> bool:
        if functorch.is_functorch_wrapped_tensor(leaf):
            if not 0 <= functorch.maybe_get_level(leaf) <= self.level:
                return False  # one of a level that was opened inside
        elif leaf.requires_grad:
            return leaf.grad_fn is None or leaf.grad_fn._sequence_nr() < self._since
        elif not isinstance(leaf, FakeTensor):
            return False
        base = innermost(leaf)
        return self.tracer is None or not isinstance(base, FakeTensor) or _proxy_of(base, self.tracer, None) is not None


class _Replacing(_Mode):
    """Hands a function other tensors in the place of captured ones."""

    parts = ("forward", "backward", "jvp", "vmap")

    def __init__(self, captured: Sequence[Tensor], names: Sequence[int], given: Sequence[Tensor]) -> None:
        super().__init__()
        self._captured = captured  # alive: a backward pass may run under this mode when nobody else holds them
        self._instead = dict(zip(names, given, strict=True))

    @contextmanager
    def inside(self, args: Any) -> Iterator[None]:
        before = self._instead  # what the operation got is what it shall use, be it a captured tensor itself
        own = {id(leaf) for leaf in tree.leaves(args) if isinstance(leaf, Tensor)}
        self._instead = {name: leaf for name, leaf in before.items() if name not in own}
        try:
            with self:
                yield
        finally:
            self._instead = before

    def look(self, leaf: Tensor) -> Tensor:
        return self._instead.get(id(leaf), leaf)


def _found(run: Callable[..., Any], given: Sequence[Tensor]) -> tuple[dict[int, tuple[Tensor, Tensor]], bool, Any]:
    """Run a function, and return what it captures, whether a tracer told so, and its results."""
    fresh = [leaf.view_as(leaf) for leaf in given]  # a captured tensor may be given too
    mode = _Finding(fresh)
    with torch.no_grad(), quiet(), disable_proxy_modes_tracing(), mode:
        outputs = mode.results(run(*fresh))
    return mode.found, mode.tracer is not None, outputs


class Closure:
    """The tensors that functions capture, found in one run of `run` on tensors like these."""

    __slots__ = ("_around", "_context", "_held", "_names", "consts", "outputs")

    def __init__(
        self, run: Callable[..., Any], given: Sequence[Tensor], context: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._around = Around()
        self._context = context  # what the functions run under, whenever they run
        found, traced, self.outputs = _found(run, given)
        if found and not traced:  # what is another tensor in another run was made inside, in a way that is not seen
            again, _, _ = _found(run, given)
            found = {name: pair for name, pair in found.items() if name in again}
        self._held = [leaf for leaf, _ in found.values()]  # alive, so that their names stay theirs
        self._names = list(found)
        self.consts = tuple(now for _, now in found.values())

    def closed(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that gets, after its arguments, the tensors that it captures."""
        count = len(self._names)

        def run(*given: Tensor) -> Any:
            # rules run functions outside of the transforms that had put both on
            with self._context(), self._around.again(self._around.tensors):
                if not count:
                    return fn(*given)
                with _Replacing(self._held, self._names, given[len(given) - count :]) as mode:
                    return mode.results(fn(*given[: len(given) - count]))

        return run
