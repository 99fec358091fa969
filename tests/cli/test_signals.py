import os
import signal
import threading

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
