"""Tasks on other processes and machines: any executor with the interface of concurrent.futures."""

from ._errors import Task
from ._local_workers import LocalWorkers
from ._run_tasks import Executor, ExecutorLike, run_tasks
from ._transport import pack, unpack

__all__ = ["Executor", "ExecutorLike", "LocalWorkers", "Task", "pack", "run_tasks", "unpack"]
