"""Run tasks on an executor: submit all, take results as they come, and run again what a lost worker had."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor
from queue import SimpleQueue
from typing import Any, Protocol

from torchpure import tree
from torchpure._types import Tree
from torchpure.errors import WorkerError

from ._errors import Task, broken_error, executor_error, task_error
from ._local_workers import LocalWorkers
from ._transport import unpack
from ._worker import Done, run_in_worker, versions

MAX_BREAKS = 3  # of an executor, one after another, without a finished task between them


class Executor(Protocol):
    """What is used of `concurrent.futures.Executor`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Return a future of `fn(*args)`."""
        ...


ExecutorLike = Executor | Callable[[], Executor]  # or what makes one; called again when one breaks


def run_tasks(
    caller: str, executor: ExecutorLike, fn: Callable[..., Tree], tasks: Sequence[Task]
) -> Generator[tuple[int, Tree], None, None]:
    """Yield the number and the result of each task, as they end. A result that was yielded is never computed again.

    An error of a task is raised as it is, with a note that says where. If this iterator is closed or interrupted, tasks
    that have not begun are cancelled.

    Raises:
        WorkerError: a worker was lost and the executor cannot go on, has other versions, or a task cannot be sent.
        TypeError: it is no executor.
        ValueError: the executor forks this process.
    """
    running = _Running(caller, executor, fn, tasks)
    try:
        running.submit(range(len(tasks)))
        while running.waiting:
            number, outcome = running.take()
            if isinstance(outcome, Done):
                yield number, unpack(outcome.result, "cpu")
    finally:
        running.close()


class _Running:
    """The tasks that are under way."""

    def __init__(self, caller: str, executor: Any, fn: Callable[..., Tree], tasks: Sequence[Task]) -> None:
        self._caller, self._fn, self._tasks = caller, fn, tasks
        is_instance = hasattr(executor, "submit") and not isinstance(executor, type)
        self._make = None if is_instance else executor
        if self._make is not None and not callable(self._make):
            raise TypeError(
                f"{caller}: executor must have a method submit, as concurrent.futures.Executor has, or be a function "
                f"that makes one; got {tree.describe(executor)}"
            )
        self._executor = executor if self._make is None else self._new()
        _refuse_fork(caller, self._executor)
        self._breaks = 0
        self._ended: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self.waiting: dict[int, tuple[Any, int]] = {}  # number -> (future, which executor has it)

    def submit(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            args = (versions(), self._fn, self._tasks[number].args)
            try:
                future = self._executor.submit(run_in_worker, *args)
            except BrokenExecutor as error:
                self._renew(number, error)
                future = self._executor.submit(run_in_worker, *args)
            except RuntimeError as error:
                raise WorkerError(f"{self._caller}: the executor takes no more tasks: {error}") from None
            self.waiting[number] = (future, self._identity())
            future.add_done_callback(lambda future, number=number: self._ended.put((number, future)))

    def take(self) -> tuple[int, Done | None]:
        """Wait for the end of a task. None: it runs again, because its worker was lost."""
        number, future = self._ended.get()
        try:
            outcome = future.result()
        except BrokenExecutor as error:
            if self.waiting[number][1] == self._identity():  # else another task of it has renewed it
                self._renew(number, error)
            self.submit([number])
            return number, None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # asyncio's CancelledError, which dask raises, is no Exception
            raise executor_error(self._caller, self._tasks[number], error) from error
        del self.waiting[number]
        self._breaks = 0
        if not isinstance(outcome, Done):
            raise task_error(self._caller, self._tasks[number].label, outcome)
        return number, outcome

    def _identity(self) -> int:
        """Return a number of the processes that tasks now go to."""
        return self._executor.made if isinstance(self._executor, LocalWorkers) else id(self._executor)

    def close(self) -> None:
        for future, _ in self.waiting.values():
            future.cancel()
        if self._make is not None:
            _shut_down(self._executor)

    def _new(self) -> Any:
        made = self._make() if self._make is not None else None
        if not hasattr(made, "submit"):
            raise TypeError(
                f"{self._caller}: executor: the function must return an executor, got {tree.describe(made)}"
            )
        return made

    def _renew(self, number: int, error: BaseException) -> None:
        self._breaks += 1
        renews = self._make is not None or isinstance(self._executor, LocalWorkers)
        if not renews or self._breaks > MAX_BREAKS:
            times = self._breaks if renews else 0
            self.waiting.clear()  # a broken ProcessPoolExecutor fails on futures that were cancelled
            raise broken_error(self._caller, self._tasks[number], error, times) from error
        if isinstance(self._executor, LocalWorkers):
            self._executor.renew()
            return
        self._executor.shutdown(wait=False)
        self._executor = self._new()


def _refuse_fork(caller: str, executor: Any) -> None:
    context = getattr(executor, "_mp_context", None)  # there is no public way to ask
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            f"{caller}: the executor forks this process, and a fork waits for ever for the threads of torch: pass "
            'mp_context=multiprocessing.get_context("spawn") to ProcessPoolExecutor'
        )


def _shut_down(executor: Any) -> None:
    try:
        executor.shutdown(wait=False, cancel_futures=True)
    except TypeError:  # dask's cancels always
        executor.shutdown(wait=False)
