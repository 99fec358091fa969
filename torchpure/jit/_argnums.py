"""The arguments of a call: which are static, which are donated, and what makes two calls the same."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import TransformError
from torchpure.transforms.engine import describe_function

_TYPES = {Tensor, torch.nn.Parameter}
Names = int | str | Sequence[int | str]
_POSITIONAL = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}
_NAMED = {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}


class Chosen:
    """Arguments that were named by position or by name, and are found by either."""

    def __init__(self, fn: Callable[..., Any], option: str, chosen: Names) -> None:
        """Look the names up.

        Raises:
            TransformError: the function has no such argument.
        """
        self._fn, self._option, self._chosen = fn, option, chosen
        self.places: set[int] = set()
        self.names: set[str] = set()
        given = (chosen,) if isinstance(chosen, int | str) else tuple(chosen)
        known = _signature(fn)
        for one in given:
            if isinstance(one, bool) or not isinstance(one, int | str) or not self._add(known, one):
                have = ", ".join(known.parameters) if known else "unknown"
                raise TransformError(
                    f"jit: {option}={chosen!r} must hold positions or names of arguments: {describe_function(fn)} has "
                    f"no argument {one!r} (it has: {have})"
                )

    def __bool__(self) -> bool:
        return bool(self.places or self.names)

    def _add(self, known: Signature | None, one: int | str) -> bool:
        parameters = list(known.parameters.values()) if known else []
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        kinds = {p.kind for p in parameters}
        if isinstance(one, int):
            if one < 0 or not (one < len(positional) or known is None or Parameter.VAR_POSITIONAL in kinds):
                return False
            self.places.add(one)
            if one < len(positional) and positional[one].kind in _NAMED:
                self.names.add(positional[one].name)
            return True
        self.names.add(one)
        self.places.update(i for i, p in enumerate(positional) if p.name == one and p.kind in _NAMED)
        return (
            known is None
            or Parameter.VAR_KEYWORD in kinds
            or any(p.name == one and p.kind in _NAMED for p in parameters)
        )

    def check_apart(self, other: "Chosen") -> None:
        """Check that no argument is in both.

        Raises:
            TransformError: one is.
        """
        for one in sorted(map(str, (self.places & other.places) or (self.names & other.names))):
            raise TransformError(
                f"jit: {describe_function(self._fn)}: argument {one} is in {self._option} and in {other._option}: a "
                "static argument has no memory to give"
            )

    def values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[int | str, Any]]:
        """List those of a call, under their positions or names."""
        found: list[tuple[int | str, Any]] = [(i, args[i]) for i in sorted(self.places) if i < len(args)]
        return found + [(name, kwargs[name]) for name in kwargs if name in self.names]

    def without(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Put None in their places."""
        return (
            tuple(None if i in self.places else arg for i, arg in enumerate(args)),
            {name: None if name in self.names else arg for name, arg in kwargs.items()},
        )


def _signature(fn: Callable[..., Any]) -> Signature | None:
    try:
        return signature(fn)
    except (TypeError, ValueError):  # a function of C
        return None


def frozen(leaf: Any) -> Any:
    """Return what stands for what is no tensor: 1, 1.0 and True are not the same, nor are 0.0 and -0.0.

    Containers and dataclasses are looked into; a module is the same only in the same mode, and so are its parts.
    """
    kind = type(leaf)
    if isinstance(leaf, float | complex):
        return kind, repr(leaf)
    if isinstance(leaf, tuple):
        return kind, tuple(map(frozen, leaf))
    if isinstance(leaf, frozenset):
        return kind, frozenset(map(frozen, leaf))
    if isinstance(leaf, torch.nn.Module):
        return kind, leaf, tuple(part.training for part in leaf.modules())
    if is_dataclass(leaf) and kind.__hash__ is not None and kind.__eq__ is not object.__eq__:
        held = [getattr(leaf, field.name) for field in fields(leaf)]
        return kind, leaf, tuple(frozen(part) for part in held if _hashable(part) and not isinstance(part, Tensor))
    return kind, leaf


def check_hashable(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], static: Chosen) -> None:
    """Say which leaf cannot be compared.

    Raises:
        TransformError: one that is no tensor has no hash.
    """
    for where, held in static.values(args, kwargs):
        if not _hashable(held):
            raise TransformError(
                f"jit: {describe_function(fn)}: the static argument {where!r} cannot be compared, it is "
                f"{tree.describe(held)}: pass a value with a hash, a tuple instead of a list"
            )
    rest = static.without(args, kwargs)
    for path, leaf in zip(tree.paths(rest), tree.leaves(rest), strict=True):
        if not isinstance(leaf, Tensor) and not _hashable(leaf):
            raise TransformError(
                f"jit: {describe_function(fn)}: argument `{path.partition('.')[2]}` is {tree.describe(leaf)}: wanted "
                "tensors (torch.as_tensor makes one), or values that can be compared"
            )


def _hashable(held: Any) -> bool:
    try:
        hash(held)
    except TypeError:
        return False
    return True


def ordinary(leaf: Tensor) -> bool:
    """Tell whether a compiled program may read the memory of a tensor."""
    return (
        type(leaf) in _TYPES
        and leaf.layout is torch.strided
        and not leaf.is_meta
        and not leaf.is_quantized
        and not leaf.is_conj()
        and not leaf.is_neg()
        and not leaf._is_zerotensor()
    )
