"""Where the members of a sweep run: here, in processes of this machine, or on a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

from torchpure.errors import InputError
from torchpure.train.executors import Executor, LocalWorkers

_SECONDS = 10  # to reach a scheduler
_SECONDS_FOR_WORKERS = 60
_MAX_WORKERS = 1024


@contextmanager
def open_executor(workers: int | None, scheduler: str | None) -> Iterator[Executor | None]:
    """Yield an executor of so many processes of one thread each, or of the cluster of a Dask scheduler, or None.

    Raises:
        InputError: both are given, the scheduler cannot be reached or has no workers, or Dask is not installed.
    """
    if workers is not None and scheduler is not None:
        raise InputError("--workers and --scheduler: wanted one of them: processes of this machine, or a cluster")
    if workers is not None:
        if not 1 <= workers <= _MAX_WORKERS:
            raise InputError(f"--workers: wanted 1 to {_MAX_WORKERS} processes, got {workers}")
        with LocalWorkers(workers) as local:
            yield local
    elif scheduler is not None:
        with _cluster(scheduler) as executor:
            yield executor
    else:
        yield None


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--scheduler: needs Dask: pip install 'torchpure[cluster]'") from None
    try:
        client = Client(address, timeout=_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--scheduler: {address[:80]!r} cannot be reached ({str(error)[:120] or type(error).__name__}); wanted the "
            "address of a running `dask scheduler`, such as tcp://HOST:8786"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_SECONDS_FOR_WORKERS)
        except TimeoutError:
            raise InputError(
                f"--scheduler: {address} has no workers after {_SECONDS_FOR_WORKERS} s; start some: `dask worker "
                f"{address} --nthreads 1`"
            ) from None
        yield client.get_executor()
