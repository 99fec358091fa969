"""Processes on this machine, one thread each; new ones are made when one is lost."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch


class LocalWorkers:
    """An executor of so many processes, which `run_tasks` renews when one of them ends."""

    def __init__(self, count: int) -> None:
        """Start no process yet: the first tasks do."""
        self.count, self.made = count, 0
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        self.made += 1
        # spawned: a fork waits for ever for the threads of torch
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, mp_context=spawn, initializer=_start)

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run `fn(*args)` in one of the processes."""
        return self._pool.submit(fn, *args)

    def renew(self) -> None:
        """Take new processes in the place of those of which one ended."""
        self._pool.shutdown(wait=False)
        self._pool = self._new()

    def __enter__(self) -> Self:
        """Return the executor; the end of the block ends its processes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the processes after the tasks that they have begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal: the first one decides
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # it was killed: a process that waits for tasks would wait for ever
        os._exit(1)
