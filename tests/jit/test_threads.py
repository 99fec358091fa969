"""First calls of compiled functions from several threads, in a process of their own: a fault may end the process."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("stress_threads.py")


def run(rounds):
    command = [sys.executable, "-W", "ignore", str(PROGRAM), str(rounds)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "right"), ended.stderr[-3000:]


@pytest.mark.compile
def test_threads_compile_at_once():
    run(2)


@pytest.mark.proof
def test_threads_compile_at_once_in_fifty_rounds():
    run(50)
