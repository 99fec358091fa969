"""Settings of the whole test run."""

import pytest
import torch


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
