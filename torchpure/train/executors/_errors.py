"""The errors of tasks on executors: who failed, which members, where, and the way out."""

import pickle
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

from torchpure.errors import WorkerError

from ._worker import Failed, OtherVersions, versions

_LOST = {"KilledWorker", "CommClosedError"}  # of dask.distributed


class Task(NamedTuple):
    """A call that runs somewhere else."""

    label: str  # such as "members 0 to 63"
    args: tuple[Any, ...]
    sent: dict[str, Any]  # what of the arguments is the user's, by name: errors say which cannot be sent


def broken_error(caller: str, task: Task, error: BaseException, times: int) -> WorkerError:
    """Return the error of an executor that broke: so many times in a row, or 0 if there is no way to make another."""
    again = f", {times} times in a row" if times else ""
    first = "" if times else "Pass a function that makes the executor, and the tasks go on in a new one. "
    return WorkerError(
        f"{caller}: a worker process ended{again} while {task.label} and others ran, and the executor with it "
        f'({error}). {first}A script that starts processes needs `if __name__ == "__main__":`; a worker that is killed '
        "perhaps had too little memory: make chunk_size smaller"
    )


def executor_error(caller: str, task: Task, error: BaseException) -> WorkerError:
    """Return what an executor raised in place of running a task, in words that say what to do."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, CancelledError) or "Cancelled" in type(error).__name__ or type(error).__name__ in _LOST:
        return WorkerError(
            f"{caller}: the executor gave up {task.label} ({what}): it was shut down, lost its scheduler, or several "
            "workers ended while they ran these members, perhaps for want of memory: make chunk_size smaller"
        )
    for name, value in task.sent.items():
        if not _can_be_sent(value):
            return WorkerError(
                f"{caller}: {name} cannot be sent to another process ({what}). Define functions at the top of a "
                "module, and give them what they need with functools.partial; or use an executor that sends functions "
                "by value (loky, dask)"
            )
    return WorkerError(
        f"{caller}: the executor could not run {task.label} ({what}): can its workers import torchpure and the module "
        "of the function?"
    )


def task_error(caller: str, label: str, outcome: Failed | OtherVersions) -> Exception:
    """Return the error that a task raised, with a note that says where; or that it could not run."""
    if isinstance(outcome, OtherVersions):
        there, here = (
            ", ".join(f"{name} {version}" for name, version in found) for found in (outcome.versions, versions())
        )
        return WorkerError(
            f"{caller}: the worker, {outcome.worker}, has {there}; wanted {here}, as here, because results differ "
            "between versions: install the same ones everywhere"
        )
    where = f"{caller}: {label}{outcome.line and f', {outcome.line}'}; in {outcome.worker}"
    error = outcome.error
    if error is None:
        error = WorkerError(f"{where}: {outcome.summary}")
    else:
        error.add_note(where)
    error.__cause__ = WorkerError(f"in the worker:\n{outcome.trace}")
    return error


def _can_be_sent(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
