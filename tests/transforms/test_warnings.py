"""What torch warns of inside itself does not reach users: in processes of their own, where a warning is an error."""

import subprocess
import sys
import warnings

import pytest
from daily import daily

from torchpure.transforms.engine import _forward_rules

PROGRAM = """
import warnings
import torch, torchpure as tp
x = torch.tensor([0.5, 2.0])
f = lambda x: (x.sin() ** 2).sum()
{call}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    warnings.warn("`torch.jit.script` is deprecated", FutureWarning)
assert len(caught) == 1
assert not [one for one in warnings.filters if one[0] == "ignore" and one[1] and "script" in one[1].pattern]
"""
FIRST = {  # a forward derivative that is the first of its process, by each route
    "jvp": "tp.jvp(f, (x,), (x,))",
    "jacfwd": "tp.jacfwd(f)(x)",
    "torch.compile": "torch.compile(lambda x: tp.jvp(f, (x,), (x,))[1], backend='eager', fullgraph=True)(x)",
}


@pytest.mark.parametrize("name", daily([*FIRST][:2], every=2))
def test_scripts_of_torch_warn_nobody(name):
    code = PROGRAM.format(call=FIRST[name])
    options = ["-W", "error", "-W", "ignore:Guards may run slower:RuntimeWarning"]  # that is of torch.compile itself
    run = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr


@pytest.mark.compile
@pytest.mark.proof
def test_scripts_of_torch_warn_nobody_who_compiles():
    test_scripts_of_torch_warn_nobody("torch.compile")


def test_filters_that_another_thread_sets_meanwhile_stay(monkeypatch):
    others = ("ignore", None, UserWarning, None, 7)

    def load():
        warnings.filters.insert(0, others)
        warnings.warn("`torch.jit.script` is deprecated", FutureWarning, stacklevel=1)

    monkeypatch.setattr(_forward_rules, "maybe_load_decompositions", load)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _forward_rules._load.__wrapped__()
        assert warnings.filters[0] is others
        with pytest.raises(FutureWarning):
            warnings.warn("`torch.jit.script` is deprecated", FutureWarning, stacklevel=1)
