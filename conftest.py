"""Settings of the whole test run, doctests included."""

import gc
import os
from pathlib import Path

# Before torch is imported, and for the processes that tests start: two threads that wait for each other spin, and on a
# busy machine a small program then takes several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import torch.distributed as dist


def pytest_collection_finish() -> None:
    """Hide from the collector what importing made: it would look at torch and its like again, thousands of times."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)  # at 700, a tenth of the time of all tests goes into collections


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small tensors do not profit from threads, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _nothing_global_changes():
    """No test, and no function that it calls, may change a global setting of torch."""
    before = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    yield
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


@pytest.fixture(autouse=True)
def _no_group_of_processes_stays():
    """A test that makes torch's default group of processes ends it: modules behave in another way while it is there."""
    before = dist.is_initialized()
    yield
    if dist.is_initialized() and not before:
        dist.destroy_process_group()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Give the test an empty cache folder of compiled programs."""
    made = tmp_path / "cache"
    monkeypatch.setenv("TORCHPURE_CACHE", str(made))
    return made


@pytest.fixture
def compiler_of_environment(monkeypatch):
    """Return a function that sets the C++ compiler for one test."""
    import torch._inductor.config  # noqa: F401, TID251 it reads the variable once, when it is imported

    return lambda words: monkeypatch.setenv("CXX", words)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Make an empty folder the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def listing():
    """Return a function that lists the names in a folder."""
    return lambda folder: sorted(path.name for path in Path(folder).iterdir())
