"""The exceptions that this library raises.

    TorchpureError
    ├── StructureError    (ValueError)     two trees, or a tree and a module, do not fit together
    │   └── ParameterError                 parameters are missing, unexpected or of the wrong shape
    ├── TransformError    (ValueError)     a transform was asked for what it cannot give
    ├── ImpureError       (RuntimeError)   a function drew without a key or changed state that it was not given
    ├── CheckError        (ValueError)     a check of the user's own, `tp.check`, does not hold
    └── InputError        (ValueError)     a file, an expression or an option from outside is not usable

Each also is the built-in exception that a caller would expect to catch.
"""

from collections.abc import Sequence


class TorchpureError(Exception):
    """Group every error of this library."""


class StructureError(TorchpureError, ValueError):
    """Report two trees that do not fit together, naming the first path that differs."""


class ParameterError(StructureError):
    """Report parameters that a module cannot take, naming each path."""


class TransformError(TorchpureError, ValueError):
    """Report a transform that was asked for what it cannot give."""


class ImpureError(TorchpureError, RuntimeError):
    """Report a function that drew without a key, or changed state that it was not given."""


class CheckError(TorchpureError, ValueError):
    """Report a check that does not hold, naming the members of a batch for which it does not.

    `members` holds an index for each that failed, with a number for each vmap, outermost first.
    """

    def __init__(self, message: str, members: Sequence[tuple[int, ...]] = (), line: str = "") -> None:
        """Say what does not hold, for whom, and where."""
        self.message, self.members, self.line = message, list(members), line
        super().__init__(message + _named(self.members) + line)

    def among(self, first: int, alone: bool) -> "CheckError":
        """Return the error for members that are some of more: theirs are counted from `first`, or this is one alone."""
        if alone:
            return CheckError(self.message, [(first, *index) for index in self.members or [()]], self.line)
        return CheckError(self.message, [(first + index[0], *index[1:]) for index in self.members], self.line)


_SHOWN = 5


def _named(members: list[tuple[int, ...]]) -> str:
    if not members:
        return ""
    names = [str(index[0]) if len(index) == 1 else str(index) for index in members[:_SHOWN]]
    more = f" and {len(members) - _SHOWN} more" if len(members) > _SHOWN else ""
    return f": member{'s' * (len(members) > 1)} {', '.join(names)}{more} of vmap"


class InputError(TorchpureError, ValueError):
    """Report a file, an expression or an option from outside that is not usable."""
