"""Compiled loops end: when an error is noted, and when a handler of signals raises."""

import os
import signal
import threading
import time

import pytest
import torch

import torchpure as tp

pytestmark = pytest.mark.compile
INDICES = torch.arange(4)
ENDLESS = {
    "while": lambda i: tp.while_loop(lambda i: i > -1, lambda i: (i + 1) % 1000, i),
    "scan": lambda i: tp.scan(lambda c, _: ((c + 1) % 1000, None), i, length=10**12)[0],
    "nested": lambda i: tp.while_loop(lambda i: i > -1, lambda i: tp.fori_loop(0, 3, lambda _, j: j % 7 + 1, i), i),
    "small products": lambda i: tp.while_loop(
        lambda m: m.sum() > -1, lambda m: (m @ m).clamp(0, 1), torch.eye(3) + i * 0
    ),
}
FAULTS = {
    "index in the condition": (IndexError, lambda i: tp.while_loop(lambda i: INDICES[i] != 9, lambda i: i + 1, i)),
    "index in the body": (IndexError, lambda i: tp.while_loop(lambda i: i >= 0, lambda i: INDICES[i + 3] * 0 + i, i)),
    "index below": (IndexError, lambda i: tp.while_loop(lambda i: INDICES[i] > -1, lambda i: i - 1, i)),
    "division": (ZeroDivisionError, lambda i: tp.while_loop(lambda i: i >= 0, lambda i: i + i // (i - i), i)),
    "remainder": (ZeroDivisionError, lambda i: tp.while_loop(lambda i: i >= 0, lambda i: i + i % (i - i), i)),
    "gather": (
        IndexError,
        lambda i: tp.while_loop(lambda i: i >= 0, lambda i: INDICES.gather(0, i[None] + 4)[0] * 0 + i, i),
    ),
    "in a nested loop": (
        IndexError,
        lambda i: tp.while_loop(
            lambda i: i >= 0, lambda i: tp.scan(lambda c, _: (INDICES[c + 3] * 0 + c, None), i, length=3)[0], i
        ),
    ),
    "in a branch": (
        IndexError,
        lambda i: tp.while_loop(
            lambda i: i >= 0, lambda i: tp.cond(i > 2, lambda i: INDICES[i + 1] * 0 + i, lambda i: i + 1, i), i
        ),
    ),
    "long scan": (
        IndexError,
        lambda i: tp.scan(lambda c, _: (INDICES[c] * 0 + c + 1, None), i, length=10**12)[0],
    ),
}


class AlarmError(Exception):
    pass


@pytest.fixture
def alarm():
    """A function that lets a handler run after some time."""

    def start(handler, seconds):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.getsignal(signal.SIGALRM)
    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def raise_alarm(*_):
    raise AlarmError("from a handler")


@pytest.mark.parametrize("name", FAULTS)
def test_a_loop_ends_when_an_error_is_noted(name, alarm):
    kind, f = FAULTS[name]
    compiled = tp.jit(f)
    assert compiled.lower(torch.tensor(1)).backend == "native"
    alarm(raise_alarm, 100)
    with pytest.raises(kind, match="in a compiled program"):
        compiled(torch.tensor(1))


@pytest.mark.parametrize("name", ENDLESS)
def test_the_exception_of_a_handler_ends_a_loop_within_a_second(name, alarm):
    compiled = tp.jit(ENDLESS[name])
    assert compiled.lower(torch.tensor(1)).backend == "native"
    alarm(raise_alarm, 0.5)  # the call loads the program first
    with pytest.raises(AlarmError, match="from a handler"):
        compiled(torch.tensor(1))


def test_a_handler_that_returns_does_not_end_a_loop(alarm):
    seen = []

    def handler(*_):
        seen.append(time.monotonic())
        alarm(handler if len(seen) < 4 else raise_alarm, 0.15)

    compiled = tp.jit(ENDLESS["while"])
    assert compiled.lower(torch.tensor(1)).backend == "native"
    alarm(handler, 0.5)
    with pytest.raises(AlarmError):
        compiled(torch.tensor(1))
    assert len(seen) == 4


def test_control_c_ends_a_loop():
    compiled = tp.jit(ENDLESS["scan"])
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        compiled(torch.tensor(1))
    timer.join()
    assert tp.jit(lambda i: tp.while_loop(lambda i: i < 9, lambda i: i + 1, i))(torch.tensor(0)) == 9


def test_a_handler_may_call_the_function_that_is_running(alarm):
    compiled = tp.jit(
        lambda x, n: tp.while_loop(lambda c: c[1] < n, lambda c: (c[0] + 1, c[1] + 1), (x, torch.tensor(0)))[0]
    )
    x, seen = torch.arange(4.0, dtype=torch.float64), []
    compiled(x, torch.tensor(3))
    alarm(lambda *_: seen.append(compiled(x + 500, torch.tensor(3))), 0.2)
    result = compiled(x, torch.tensor(400_000_000))
    assert torch.equal(result, x + 400_000_000) and torch.equal(seen[0], x + 503)
