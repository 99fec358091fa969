"""The exceptions that this library raises.

    TorchpureError
    ├── StructureError (ValueError, RuntimeError)  two trees, or a tree and a module, have different structures
    │   └── ParameterError                         parameters are missing, unexpected or of the wrong shape
    ├── TransformError (ValueError, RuntimeError)  a transform cannot do what was asked
    ├── ImpureError    (RuntimeError)              a function drew without a key, or changed state not given to it
    ├── MeshError      (RuntimeError)              processes of a mesh disagree, one has ended, or did not come in time
    ├── CheckError     (ValueError)                a check of the user, `tp.check`, failed
    ├── InputError     (ValueError)                a file, an expression or an option of the user is invalid
    ├── NonFiniteError (FloatingPointError)        a loss or a gradient of a training is not finite
    ├── CheckpointError (OSError)                  a checkpoint cannot be written or read, or is damaged
    └── WorkerError     (RuntimeError)             a worker of an executor was lost, or cannot run what it is sent

Each is also the built-in exceptions in brackets, so `except ValueError` catches it. Where torch raises RuntimeError for
the same fault, `except RuntimeError` catches it too.
"""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "CheckError",
    "CheckpointError",
    "ImpureError",
    "InputError",
    "MeshError",
    "NonFiniteError",
    "ParameterError",
    "StructureError",
    "TorchpureError",
    "TransformError",
    "WorkerError",
]


class TorchpureError(Exception):
    """The base class of every error of this library."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Let errors come back whole from other processes: without this, Python calls `__init__` with the message."""
        return _with_state, (type(self), self.args, dict(vars(self)))


def _with_state(kind: type[TorchpureError], args: tuple[Any, ...], state: dict[str, Any]) -> TorchpureError:
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class StructureError(TorchpureError, ValueError, RuntimeError):
    """Report two trees of different structures, with the first path that differs."""


class ParameterError(StructureError):
    """Report parameters that a module cannot take, with the path of each."""


class TransformError(TorchpureError, ValueError, RuntimeError):
    """Report a transform that cannot do what was asked."""


class ImpureError(TorchpureError, RuntimeError):
    """Report a function that drew without a key, or changed state that it was not given."""


class MeshError(TorchpureError, RuntimeError):
    """Report processes of a mesh that disagree, have ended, or did not come in time; every process raises it."""


class CheckError(TorchpureError, ValueError):
    """Report a failed check, with the members of the batch for which it failed.

    `members` holds one index per failed member, with one number per vmap, outermost first.
    """

    def __init__(self, message: str, members: Sequence[tuple[int, ...]] = (), line: str = "") -> None:
        """Take the message, the failed members, and the line of the check."""
        self.message, self.members, self.line = message, list(members), line
        super().__init__(message + _list_members(self.members) + line)

    def among(self, first: int, alone: bool) -> "CheckError":
        """Return the error for the whole batch: this chunk starts at `first`, or is that one member if `alone`."""
        if alone:
            return CheckError(self.message, [(first, *index) for index in self.members or [()]], self.line)
        return CheckError(self.message, [(first + index[0], *index[1:]) for index in self.members], self.line)


_MAX_SHOWN = 5


def _list_members(members: list[tuple[int, ...]]) -> str:
    if not members:
        return ""
    names = [str(index[0]) if len(index) == 1 else str(index) for index in members[:_MAX_SHOWN]]
    more = f" and {len(members) - _MAX_SHOWN} more" if len(members) > _MAX_SHOWN else ""
    return f": member{'s' * (len(members) > 1)} {', '.join(names)}{more} of vmap"


class InputError(TorchpureError, ValueError):
    """Report an invalid file, expression or option of the user."""


class NonFiniteError(TorchpureError, FloatingPointError):
    """Report a training whose loss or gradient is not finite.

    `step` is the first bad step, from 1; `path` names the parameter whose gradient is bad, or is "the loss". `params`,
    `opt_state` and `state` are those before that step. Of a batch of trainings, `members` holds one index per bad
    member, with one number per vmap, outermost first; then `result` has the results of all members, in which each bad
    member is as it was before its bad step.
    """

    def __init__(
        self,
        message: str,
        *,
        step: int,
        path: str,
        params: Any = None,
        opt_state: Any = None,
        state: Any = None,
        members: Sequence[tuple[int, ...]] = (),
        result: Any = None,
    ) -> None:
        """Take the message, the place of the first bad number, and the last good values."""
        self.step, self.path, self.members = step, path, list(members)
        self.params, self.opt_state, self.state, self.result = params, opt_state, state, result
        super().__init__(message + _list_members(self.members))


class CheckpointError(TorchpureError, OSError):
    """Report a checkpoint that cannot be written or read, or is damaged, with its path."""

    writer: str | None = None  # the process that has the folder, if that is why


class WorkerError(TorchpureError, RuntimeError):
    """Report a worker that was lost, has other versions, or cannot run what it is sent."""
