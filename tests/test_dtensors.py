"""DTensors are recognised without an import of them."""

import subprocess
import sys

import torch

from torchpure._dtensors import dtensor_class, is_dtensor


def test_dtensors_are_recognised():
    from torch.distributed.tensor import DTensor

    assert dtensor_class() is DTensor
    assert not is_dtensor(torch.ones(2)) and not is_dtensor("text")


def test_nothing_is_imported_to_look():
    code = (
        "import sys, torch; from torchpure._dtensors import is_dtensor; assert not is_dtensor(torch.ones(2));"
        "assert 'torch.distributed.tensor' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
