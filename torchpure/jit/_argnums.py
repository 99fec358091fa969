"""Static and donated arguments, named by position or by name; and hash keys of Python values."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any

import torch
from torch import Tensor

from torchpure import tree
from torchpure.errors import TransformError
from torchpure.transforms.engine import describe_function

_TENSOR_TYPES = {Tensor, torch.nn.Parameter}
ArgumentSpec = int | str | Sequence[int | str]
_BY_POSITION = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}
_BY_NAME = {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}


class ArgumentSet:
    """Hold a set of arguments of one function, given by position or by name."""

    def __init__(self, fn: Callable[..., Any], option: str, requested: ArgumentSpec) -> None:
        """Resolve each position and each name against the signature of `fn`.

        Raises:
            TransformError: the function has no such argument.
        """
        self._fn, self._option, self._requested = fn, option, requested
        self.positions: set[int] = set()
        self.names: set[str] = set()
        requested_list = (requested,) if isinstance(requested, int | str) else tuple(requested)
        function_signature = _signature(fn)
        for wanted in requested_list:
            if (
                isinstance(wanted, bool)
                or not isinstance(wanted, int | str)
                or not self._add(function_signature, wanted)
            ):
                have = ", ".join(function_signature.parameters) if function_signature else "unknown"
                raise TransformError(
                    f"jit: {option}={requested!r} must hold positions or names of arguments: {describe_function(fn)} "
                    f"has no argument {wanted!r} (it has: {have})"
                )

    def __bool__(self) -> bool:
        return bool(self.positions or self.names)

    def _add(self, function_signature: Signature | None, wanted: int | str) -> bool:
        parameters = list(function_signature.parameters.values()) if function_signature else []
        positional = [p for p in parameters if p.kind in _BY_POSITION]
        parameter_kinds = {p.kind for p in parameters}
        if isinstance(wanted, int):
            if wanted < 0 or not (
                wanted < len(positional) or function_signature is None or Parameter.VAR_POSITIONAL in parameter_kinds
            ):
                return False
            self.positions.add(wanted)
            if wanted < len(positional) and positional[wanted].kind in _BY_NAME:
                self.names.add(positional[wanted].name)
            return True
        self.names.add(wanted)
        self.positions.update(i for i, p in enumerate(positional) if p.name == wanted and p.kind in _BY_NAME)
        return (
            function_signature is None
            or Parameter.VAR_KEYWORD in parameter_kinds
            or any(p.name == wanted and p.kind in _BY_NAME for p in parameters)
        )

    def check_disjoint(self, other: "ArgumentSet") -> None:
        """Check that the two sets share no argument.

        Raises:
            TransformError: an argument is in both sets.
        """
        for argument in sorted(map(str, (self.positions & other.positions) or (self.names & other.names))):
            raise TransformError(
                f"jit: {describe_function(self._fn)}: argument {argument} is in {self._option} and in {other._option}: "
                "a static argument has no memory for results to take"
            )

    def values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[int | str, Any]]:
        """List the arguments of one call that are in this set, each with its position or name."""
        found: list[tuple[int | str, Any]] = [(i, args[i]) for i in sorted(self.positions) if i < len(args)]
        return found + [(name, kwargs[name]) for name in kwargs if name in self.names]

    def without(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Replace the arguments that are in this set by None."""
        return (
            tuple(None if i in self.positions else arg for i, arg in enumerate(args)),
            {name: None if name in self.names else arg for name, arg in kwargs.items()},
        )


def _signature(fn: Callable[..., Any]) -> Signature | None:
    try:
        return signature(fn)
    except (TypeError, ValueError):  # functions written in C may have no signature
        return None


def hash_key(leaf: Any) -> Any:
    """Return a key for a value that is not a tensor. Two values with equal keys share a program.

    Keys are stricter than `==`: 1, 1.0 and True differ, and so do 0.0 and -0.0. The rule also holds inside tuples,
    frozensets and dataclasses. A module is equal to itself only while all of its parts keep their training mode.
    """
    kind = type(leaf)
    if isinstance(leaf, float | complex):
        return kind, repr(leaf)
    if isinstance(leaf, tuple):
        return kind, tuple(map(hash_key, leaf))
    if isinstance(leaf, frozenset):
        return kind, frozenset(map(hash_key, leaf))
    if isinstance(leaf, torch.nn.Module):
        return kind, leaf, tuple(part.training for part in leaf.modules())
    if is_dataclass(leaf) and kind.__hash__ is not None and kind.__eq__ is not object.__eq__:
        values = [getattr(leaf, field.name) for field in fields(leaf)]
        return kind, leaf, tuple(hash_key(part) for part in values if _hashable(part) and not isinstance(part, Tensor))
    return kind, leaf


def check_hashable(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], static: ArgumentSet) -> None:
    """Find the leaf that makes a call impossible to look up.

    Raises:
        TransformError: a leaf that is not a tensor has no hash.
    """
    for where, value in static.values(args, kwargs):
        if not _hashable(value):
            raise TransformError(
                f"jit: {describe_function(fn)}: the static argument {where!r} cannot be compared, it is "
                f"{tree.describe(value)}: pass a hashable value, such as a tuple instead of a list"
            )
    rest = static.without(args, kwargs)
    for path, leaf in zip(tree.paths(rest), tree.leaves(rest), strict=True):
        if not isinstance(leaf, Tensor) and not _hashable(leaf):
            raise TransformError(
                f"jit: {describe_function(fn)}: argument `{path.partition('.')[2]}` is {tree.describe(leaf)}: wanted "
                "tensors (torch.as_tensor makes one) or hashable values"
            )


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def has_plain_memory(leaf: Tensor) -> bool:
    """Tell whether a compiled program may read the memory of this tensor directly."""
    return (
        type(leaf) in _TENSOR_TYPES
        and leaf.layout is torch.strided
        and not leaf.is_nested
        and not leaf.is_meta
        and not leaf.is_quantized
        and not leaf.is_conj()
        and not leaf.is_neg()
        and not leaf._is_zerotensor()
    )
