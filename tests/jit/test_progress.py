"""The line that says what takes long."""

import io
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn

import torchpure as tp
from torchpure import _progress


@pytest.fixture
def terminal(monkeypatch):
    """A terminal in memory, and no delay."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200)
    monkeypatch.setattr(_progress, "DELAY", 0.0)
    monkeypatch.setattr(_progress, "enabled", lambda: True)
    monkeypatch.setattr(
        _progress, "make_bar", lambda: Progress(TextColumn("{task.description}"), console=console, auto_refresh=False)
    )
    return out


def _wait_for(out, text):
    end = time.monotonic() + 20
    while text not in out.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
    return text in out.getvalue()


def test_a_line_names_the_work_and_its_stage(terminal):
    with _progress.progress(lambda: "work", "first"):
        assert _wait_for(terminal, "work: first")
        with _progress.progress(lambda: "inner", "none"):  # one line at a time
            _progress.stage("second")
    assert "work: second" in terminal.getvalue() and "inner" not in terminal.getvalue()
    _progress.stage("later")
    assert "later" not in terminal.getvalue()


@pytest.mark.compile
def test_jit_shows_what_it_compiles(terminal, folder):
    def slow(x):
        assert _wait_for(terminal, "jit: compiling `slow` (test_progress.py:")
        return x.sin()

    tp.jit(slow)(torch.ones(3))
    assert "the C++ compiler" in terminal.getvalue()


def test_nothing_is_written_where_no_one_looks(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "DELAY", 0.0)
    with _progress.progress(lambda: "work", "first"):
        time.sleep(0.05)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert _progress.enabled()
    monkeypatch.setenv("TORCHPURE_PROGRESS", "0")
    assert not _progress.enabled()


_PROGRAM = """
import os, torch, torchpure as tp
try:
    tp.jit(lambda x: x.sin() + 1)(torch.ones(3))
except KeyboardInterrupt:
    print("stopped", os.listdir(os.environ["TORCHPURE_CACHE"]))
os.environ["CXX"] = "g++"
print(tp.jit(lambda x: x.cos() + 1)(torch.zeros(3)))
"""


@pytest.mark.compile
def test_control_c_stops_the_compiler_and_leaves_nothing_behind(folder, tmp_path):
    compiler = tmp_path / "slow-compiler"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exec g++ --version\ntouch "$0.started"\nexec sleep 60\n')
    compiler.chmod(0o755)
    master, slave = pty.openpty()
    env = os.environ | {"TORCHPURE_CACHE": str(folder), "CXX": str(compiler), "TORCHPURE_PROGRESS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _PROGRAM], env=env, stdout=subprocess.PIPE, stderr=slave, text=True
    )
    os.close(slave)
    end = time.monotonic() + 60
    while not compiler.with_suffix(".started").exists() and time.monotonic() < end:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    os.close(master)
    assert out.splitlines() == ["stopped []", "tensor([2., 2., 2.])"]
