"""Whether a function left alone what it was given: its arguments, and the tensors that it captures.

Tensors count their changes, and views share the count of their base. What a function captures is what can be reached
from it: closure cells, defaults, the globals that its code names, `self`, modules, containers, classes and plain
objects. What only calls bring up is not seen here; `pure` sees everything, and costs more.
"""

import operator
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import ImpureError
from torchpure.transforms.engine import argument_paths, describe_function, fresh, functorch, innermost, stale
from torchpure.transforms.overrides import overriding

from ._reach import _DIFFERENTIATES, _search, name_of

_NOTHING = nullcontext()
_version = operator.attrgetter("_version")
peek = functorch.peek_interpreter_stack


class NoWatch:
    """Stands for a watch while a compiler traces, which follows changes by itself."""

    __slots__ = ()

    def check(self) -> None:
        """Check nothing."""

    def replacing(self, always: bool = False) -> AbstractContextManager[None]:
        """Replace nothing."""
        return _NOTHING

    def apart(self, result: Tree) -> Tree:
        """Return the result as it is."""
        return result


def watched(who: str, fn: Callable[..., Any], args: tuple[Tree, ...], kwargs: Any = None) -> "Watch | NoWatch":
    """Begin to watch what `fn` must not change; `check()` after it has run."""
    return NoWatch() if is_dynamo_compiling() else Watch(who, fn, args, kwargs)


def run_watched(who: str, fn: Callable[..., Any], *args: Tree) -> Any:
    """Return `fn(*args)`, where no transform is at work; check that it changes nothing that it was given."""
    watch = watched(who, fn, args)
    out = fn(*args)
    watch.check()
    return watch.apart(out)


class Watch:
    """The tensors that a function must not change, with how often each has been changed so far."""

    __slots__ = ("_args", "_captured", "_fn", "_given", "_keeps", "_replaces", "_sets", "_versions", "_who")

    def __init__(self, who: str, fn: Callable[..., Any], args: tuple[Tree, ...], kwargs: Any = None) -> None:
        self._who, self._fn, self._args = who, fn, args
        self._given = [leaf for leaf in tree.leaves((args, kwargs) if kwargs else args) if isinstance(leaf, Tensor)]
        found = _search(fn)
        self._sets = found.sets
        self._captured, self._keeps, self._replaces, _ = _search(fn, deep=True) if found.sets else found
        self._versions = _versions([*self._given, *self._captured])

    def check(self, own: Callable[[Tensor], bool] = stale) -> None:
        """Check, after the function has run, that it changed nothing and let out nothing that is our `own`.

        Raises:
            ImpureError: an argument or a captured tensor was changed, or a traced tensor let out; it is named.
        """
        if _versions([*self._given, *self._captured]) != self._versions:
            self._refuse()
        if self._keeps:
            self._check_leaks(own)

    def replacing(self, always: bool = False) -> AbstractContextManager[None]:
        """Run the function with operations that torch's transforms get wrong replaced, if its code names any."""
        return overriding() if always or self._replaces else _NOTHING

    def apart(self, result: Tree) -> Tree:
        """Return a result in memory of its own, as compiled programs do: who changes it changes nothing else."""
        leaves, structure = tree.flatten(result)
        own = fresh(leaves, [*self._given, *self._captured])
        return result if all(map(operator.is_, leaves, own)) else tree.unflatten(structure, own)

    def following(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function for plain autograd: the user's own calls of it are followed there, if there are any."""
        if self._replaces < _DIFFERENTIATES:
            return fn

        def run(*args: Any, **kwargs: Any) -> Any:
            with overriding():
                return fn(*args, **kwargs)

        return run

    def _refuse(self) -> None:
        now = _versions([*self._given, *self._captured])
        index = next(i for i, (one, two) in enumerate(zip(now, self._versions, strict=True)) if one != two)
        if index < len(self._given):
            paths = [path for number, arg in enumerate(self._args) for path in argument_paths(number, arg)]
            leaves = tree.leaves(self._args)
            named = (path for path, leaf in zip(paths, leaves, strict=True) if leaf is self._given[index])
            what = next(named, "a keyword argument")
        else:
            what = f"what it captures, {name_of(self._captured[index - len(self._given)], self._fn)}"
        raise ImpureError(
            f"{self._who}: {describe_function(self._fn)} changes {what} in place, which a function under a transform "
            "must leave alone: clone it, or return the new value. tp.pure(fn) shows the line"
        )

    def _check_leaks(self, own: Callable[[Tensor], bool]) -> None:
        before = set(map(id, self._captured))
        for found in _search(self._fn, deep=self._sets).tensors:
            if id(found) not in before and own(found):
                raise ImpureError(
                    f"{self._who}: {describe_function(self._fn)} lets a traced tensor out, "
                    f"{name_of(found, self._fn)}: it has no meaning there. Return it, as aux with has_aux=True"
                )


def _versions(leaves: list[Tensor]) -> list[int]:
    try:
        return [innermost(leaf)._version for leaf in leaves] if peek() is not None else list(map(_version, leaves))
    except RuntimeError:  # tensors made in inference mode do not count
        return [0 if inner.is_inference() else inner._version for inner in map(innermost, leaves)]
