"""Arrow's threads and the end of Python: a short program does not abort after an error."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from daily import proof

PROGRAM = """
import sys
from pathlib import Path
from torchpure.data import read_table
read_table(Path(sys.argv[1]), ["a", "b"])
"""


@pytest.mark.parametrize(
    ("name", "runs"), [("t.parquet", 1), proof("t.parquet", 5), proof("t.arrow", 1), proof("t.csv", 1)]
)
def test_a_program_that_ends_after_reading_does_not_abort(name, runs, tmp_path):
    path = tmp_path / name
    table = pa.table({"a": [[1, 2]] * 40, "b": [1.0] * 40})
    if name == "t.csv":
        path.write_text("a,b\n" + "1,2\n" * 40)
    else:
        {"t.parquet": pq.write_table, "t.arrow": feather.write_feather}[name](table, path)
    for _ in range(runs):  # with a file of Python, three of four aborted
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, timeout=120)
        assert "terminate called" not in done.stderr
        assert done.returncode == 0
