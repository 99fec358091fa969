import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from torchpure import _start
from torchpure.cli._signals import catch_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_reported_and_the_handler_is_restored(number):
    before = signal.getsignal(number)
    with catch_signals() as stop:
        assert stop() == 0
        os.kill(os.getpid(), number)
        assert stop() == number
    assert signal.getsignal(number) is before


def test_a_second_signal_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), catch_signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_set_no_handler():
    told = []

    def work():
        with catch_signals() as stop:
            told.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [0]


def test_a_terminal_that_goes_away_does_not_end_the_run(here):
    """The run is the leader of a session with a terminal of its own, which is then closed."""
    words = ["fit", "x", "--steps", "1000", "--hidden", "4"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "torchpure", *words])
    deadline = time.monotonic() + 300
    while not any(path.stat().st_size for path in here.glob("runs/*/metrics.jsonl")) and time.monotonic() < deadline:
        select.select([terminal], [], [], 0.05)
    os.close(terminal)
    os.waitpid(child, 0)
    result = json.loads((here / "runs/x/result.json").read_text())
    assert (result["status"], result["steps"]) == ("done", 1000)


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_while_torch_is_imported_gives_one_line(tmp_path, number, word):
    """A package of that name stands in for torch: the signal comes in the middle of its import."""
    (tmp_path / "torch.py").write_text(
        f"import os, time\ntry:\n    os.kill(os.getpid(), {int(number)})\n    time.sleep(60)\nexcept BaseException: pass\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    words = [sys.executable, "-m", "torchpure", "fit", "x"]
    ended = subprocess.run(words, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 128 + number and ended.stdout == ""
    assert ended.stderr == f"torchpure: {word}; nothing was saved\n"


def test_a_program_that_imports_the_package_keeps_its_handlers():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler and not _start.is_command()
