"""The examples of docs/training.md, from the section on steps that are not finite on, run as they are printed."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import torchpure as tp

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
RUN = ("Steps that are not finite", "Callbacks", "A learning rate to start with", "Large batches and bfloat16")
PRINTED = {
    "Steps that are not finite": r"Divergence: none\n\d+ \S.*\n\[\(1,\)\] Sweep: 2 members",
    "Callbacks": "",
    "A learning rate to start with": r"LearningRates: 0\.\d+ suggested; ",
    "Large batches and bfloat16": "",
}


@pytest.mark.compile
@pytest.mark.parametrize("title", RUN)
def test_the_examples_run_as_they_are_printed(title, tmp_path, capsys):
    x = torch.linspace(-1, 1, 40)[:, None]
    net = tp.functional(nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)))
    params, _ = net.init(tp.random.key(0))
    module = net.to_module(params)
    space = {"tp": tp, "torch": torch, "x": x, "y": torch.sin(3 * x), "net": tp.functional(module), "folder": tmp_path}
    for block in re.findall(r"```python\n(.*?)```", SECTIONS[title], re.DOTALL):
        exec(compile(block, title, "exec"), space)
    assert re.match(PRINTED[title], capsys.readouterr().out)
    if title == "Callbacks":
        assert space["worst"] > 0 and space["smooth"].shape == x.shape and (tmp_path / "log.csv").exists()
    if title == "Large batches and bfloat16":
        assert space["result"].opt_state.step == 10


def test_what_the_page_lists_exists():
    names = re.findall(r"^\| `(\w+)\(", SECTIONS["Callbacks"], re.MULTILINE)
    assert len(names) >= 7 and all(callable(getattr(tp.train.callbacks, name)) for name in names)
