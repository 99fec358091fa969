import json
import os
import pty
import select
import signal
import sys
import threading
import time

import pytest

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
    words = ["fit", "x", "--steps", "3000", "--hidden", "4"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "torchpure", *words])
    deadline = time.monotonic() + 300
    while not any(path.stat().st_size for path in here.glob("runs/*/metrics.jsonl")) and time.monotonic() < deadline:
        select.select([terminal], [], [], 0.05)
    os.close(terminal)
    os.waitpid(child, 0)
    result = json.loads((here / "runs/x/result.json").read_text())
    assert (result["status"], result["steps"]) == ("done", 3000)
