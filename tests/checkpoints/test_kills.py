"""A writer that is killed at any moment loses nothing that it had committed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from daily import proof


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
@pytest.mark.parametrize("kills", [pytest.param(12, id="sample"), proof(1000, id="all")])
def test_kills_lose_and_mix_nothing(tmp_path, kills):
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, str(script), str(tmp_path / "run"), str(kills), "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert re.match(rf"{kills} kills, \d+ steps saved, none lost, none mixed, \d+ stray folders swept", done.stdout)
