"""Files that Arrow reads without Python."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def native_file(path: Path) -> Iterator[Any]:
    """Open a file for Arrow's threads. They would need Python's lock for a file of Python, also when Python ends.

    A thread that waits for the lock then aborts the process ("terminate called without an active exception").
    """
    import pyarrow as pa

    with pa.OSFile(os.fsencode(path)) as file:
        yield file
