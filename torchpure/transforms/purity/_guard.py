"""A guard around one call of a function: it must not change its arguments or the tensors that it captures.

Each tensor has a version counter, which views share with their base. The captured tensors are those that can be reached
from the function: closure cells, defaults, globals that its code names, `self`, modules, containers, classes and plain
objects. A tensor that only a call can produce is not found; `pure` sees everything, and costs more.

The search has a limit: 2,000 objects in the first call of a function. After a call that passed, it looks at the nearest
6 objects, for mutations alone. So the cost of a call does not grow with what the function can reach. The check only
reports: no result depends on it.
"""

import operator
from collections.abc import Callable
from functools import partial
from types import CellType, FunctionType
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import ImpureError
from torchpure.transforms.engine import argument_paths, describe_function, functorch, innermost, stale, unaliased

from ._reach import SHORT_LIMIT, name_of, search

_version = operator.attrgetter("_version")
_MAX_HISTORIES = 4096
peek = functorch.peek_interpreter_stack


class NoWatch:
    """Does nothing, in place of `Watch` under torch.compile, which follows mutations by itself."""

    __slots__ = ()

    def check(self, traced: Callable[[Tensor], bool] = stale) -> None:
        """Check nothing."""

    def unaliased(self, result: Tree) -> Tree:
        """Return the result as it is."""
        return result


def watched(caller: str, fn: Callable[..., Any], args: tuple[Tree, ...], kwargs: Any = None) -> "Watch | NoWatch":
    """Return a watch of what `fn` must not change; call its `check()` after `fn` has run."""
    return NoWatch() if is_dynamo_compiling() else Watch(caller, fn, args, kwargs)


def run_watched(caller: str, fn: Callable[..., Any], *args: Tree) -> Any:
    """Return `fn(*args)` with unaliased results, and check that it changes nothing; for calls outside of transforms."""
    watch = watched(caller, fn, args)
    out = fn(*args)
    watch.check()
    return watch.unaliased(out)


class Watch:
    """The tensors that a function must not change, with their versions before the call."""

    __slots__ = (
        "_args",
        "_caller",
        "_can_store",
        "_captured",
        "_fn",
        "_given",
        "_history",
        "_sets_attributes",
        "_versions",
    )

    def __init__(self, caller: str, fn: Callable[..., Any], args: tuple[Tree, ...], kwargs: Any = None) -> None:
        self._caller, self._fn, self._args = caller, fn, args
        self._given = [leaf for leaf in tree.leaves((args, kwargs) if kwargs else args) if isinstance(leaf, Tensor)]
        found = search(fn, limit=SHORT_LIMIT)
        self._history = None if found.is_whole else _history_of(fn)
        passed = self._history is not None and self._history.passed
        if not (found.is_whole or passed):
            found = search(fn)
        self._sets_attributes = found.sets_attributes
        if found.sets_attributes and not passed:
            found = search(fn, deep=True)
        self._captured, self._can_store = found.tensors, found.can_store and not passed
        self._versions = _versions([*self._given, *self._captured])

    def check(self, traced: Callable[[Tensor], bool] = stale) -> None:
        """Check, after the function has run, that it changed nothing and stored no tensor that is `traced`.

        Raises:
            ImpureError: an argument or a captured tensor was changed, or a traced tensor was stored; it is named.
        """
        if _versions([*self._given, *self._captured]) != self._versions:
            self._refuse()
        if self._can_store:
            self._check_leaks(traced)
        if self._history is not None:
            self._history.passed = True

    def unaliased(self, result: Tree) -> Tree:
        """Return a result that shares no memory with arguments or captured tensors, as compiled programs do."""
        leaves, structure = tree.flatten(result)
        new = unaliased(leaves, [*self._given, *self._captured])
        return result if all(map(operator.is_, leaves, new)) else tree.unflatten(structure, new)

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
            f"{self._caller}: {describe_function(self._fn)} changes {what} in place, which a function under a "
            "transform must leave alone: clone it, or return the new value. tp.pure(fn) shows the line"
        )

    def _check_leaks(self, traced: Callable[[Tensor], bool]) -> None:
        before = set(map(id, self._captured))
        for found in search(self._fn, deep=self._sets_attributes).tensors:
            if id(found) not in before and traced(found):
                raise ImpureError(
                    f"{self._caller}: {describe_function(self._fn)} lets a traced tensor out, "
                    f"{name_of(found, self._fn)}: it has no meaning there. Return it, as aux with has_aux=True"
                )


class _History:
    """What is known of a function from earlier calls."""

    passed = False  # a call passed the whole search


_histories: dict[tuple[Any, ...], _History] = {}


def _history_of(fn: Any) -> _History:
    """Return the history of a function; functions with the same code, around functions with the same code, share it."""
    own = _code_of(fn)
    inner = [cell.cell_contents for cell in getattr(fn, "__closure__", None) or () if not _is_empty(cell)]
    key = (own, *[_code_of(held) for held in inner if callable(held) and not isinstance(held, Tensor)])
    if len(_histories) >= _MAX_HISTORIES:
        _histories.clear()
    return _histories.setdefault(key, _History())


def _code_of(fn: Any) -> Any:
    """Return the code of a function without its wrappers, or the class of another callable."""
    while True:
        inner = fn.func if isinstance(fn, partial) else isinstance(fn, FunctionType) and fn.__dict__.get("__wrapped__")
        if not inner:
            return getattr(fn, "__code__", None) or type(fn)
        fn = inner


def _is_empty(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _versions(leaves: list[Tensor]) -> list[int]:
    try:
        return [innermost(leaf)._version for leaf in leaves] if peek() is not None else list(map(_version, leaves))
    except RuntimeError:  # tensors made in inference mode have no version
        return [0 if inner.is_inference() else inner._version for inner in map(innermost, leaves)]
