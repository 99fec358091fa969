"""What runs in a worker: one task, whose result or error goes back as data.

An exception that an executor itself raises is thus never one of the task: it is about the worker or the way there.
"""

import os
import pickle
import platform
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from torchpure import __version__
from torchpure._types import Tree
from torchpure.jit.native import on_one_thread
from torchpure.transforms.engine import user_line

from ._transport import pack

Versions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The packed result of a task."""

    result: Tree


@dataclass(frozen=True, slots=True)
class Failed:
    """The error of a task."""

    error: Exception | None  # None: it cannot be sent
    summary: str  # its type and message
    line: str  # of the user's program, or empty
    worker: str
    trace: str


@dataclass(frozen=True, slots=True)
class OtherVersions:
    """The task did not run: the worker has other versions."""

    versions: Versions
    worker: str


def versions() -> Versions:
    """Return the versions on which the bits of a result depend."""
    return ("torchpure", __version__), ("torch", torch.__version__)


def run_in_worker(wanted: Versions, fn: Callable[..., Tree], args: tuple[Any, ...]) -> Done | Failed | OtherVersions:
    """Run `fn(*args)`; native programs run on one thread, because the executor runs other tasks beside this one."""
    worker = f"process {os.getpid()} on {platform.node()}"
    if wanted != versions():
        return OtherVersions(versions(), worker)
    try:
        with on_one_thread():
            return Done(pack(fn(*args)))
    except Exception as error:
        line = user_line(error).strip(", ")
        summary, trace = f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))
        return Failed(_sendable(error), summary, line, worker, trace)


def _sendable(error: Exception) -> Exception | None:
    """Return an error if it stays the same on its way, without its traceback."""
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 of our own bytes
    except Exception:
        return None
    same = type(copy) is type(error) and str(copy) == str(error)
    return error.with_traceback(None) if same else None
