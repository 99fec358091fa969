"""Processes for tests: started once, then sent many cases."""

import contextlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

SECONDS = 60.0  # longer than any case takes


def serve(connection: Connection, rank: int, size: int, store: str) -> None:
    """Run cases that come through the connection until it closes."""
    import datetime

    import torch
    import torch.distributed as dist
    from layout_cases import RUN as LAYOUTS
    from parallel_cases import RUN
    from resume_cases import RUN as RESUMED
    from sharded_cases import RUN as SHARDED

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=datetime.timedelta(seconds=SECONDS)
    )
    tables = [RUN, SHARDED, RESUMED, LAYOUTS]
    cases = {name: case for table in tables for name, case in table.items()}
    assert len(cases) == sum(map(len, tables)), "two cases have one name"
    while True:
        try:
            name, args = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("done", cases[name](*args)))
        except Exception as error:
            connection.send(("raised", f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-4)}"))


@contextlib.contextmanager
def environment_of_server() -> Iterator[None]:
    """Give the server that forks the processes the path of this one: it imports nothing without, and says nothing.

    It must see no GPU: torch's backward pass starts a thread for each, and cannot run in a fork after that.
    """
    values = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class Pool:
    """Processes of one program, as torchrun starts them."""

    def __init__(self, size: int, folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")  # imports torch once
        context.set_forkserver_preload(["warm_up"])
        pairs = [context.Pipe() for _ in range(size)]
        self.connections = [ours for ours, _ in pairs]
        self.processes = [
            context.Process(target=serve, args=(theirs, rank, size, str(folder / "store")), daemon=True)
            for rank, (_, theirs) in enumerate(pairs)
        ]
        with environment_of_server():
            for process in self.processes:
                process.start()
        for _, theirs in pairs:
            theirs.close()

    def run(self, name: str, *args: Any) -> list[tuple[str, Any]]:
        """Run a case on all processes; return ("done", result), ("raised", text) or ("ended", "") of each."""
        for connection in self.connections:
            connection.send((name, args))
        return [self._answer(connection) for connection in self.connections]

    def _answer(self, connection: Connection) -> tuple[str, Any]:
        if not wait([connection], SECONDS):
            return "hangs", ""
        try:
            return connection.recv()
        except (EOFError, ConnectionResetError):
            return "ended", ""

    def results(self, name: str, *args: Any) -> list[Any]:
        """Run a case that must not raise."""
        answers = self.run(name, *args)
        assert {kind for kind, _ in answers} == {"done"}, "\n".join(str(value) for _, value in answers)
        return [value for _, value in answers]

    def close(self) -> None:
        """End the processes."""
        for connection in self.connections:
            connection.close()
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
