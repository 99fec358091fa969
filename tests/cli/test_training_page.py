"""The section "Data files" of docs/training.md runs as printed."""

import random
import re
import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

import torchpure as tp
from torchpure.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


@pytest.fixture
def section(here):
    """Return the section's blocks by language; its table, with more rows, is in the working directory."""
    text = PAGE.read_text(encoding="utf-8")
    text = text[text.index("## Data files") : text.index("## Sweeps")]
    blocks = {
        language: re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for language in ("csv", "sh", "python")
    }
    header, *rows = blocks["csv"][0].splitlines()
    draw = random.Random(0)
    more = [
        f"{draw.choice(['Oslo', 'Rome'])},{draw.choice(['Elm Road', 'High Street'])},{area},{draw.choice(['true', 'false'])},"
        f"19{draw.randrange(50, 99)}-0{draw.randrange(1, 9)}-11,{5 * area},{'big' if area > 100 else 'small'}"
        for area in range(30, 180)
    ]
    (here / "houses.csv").write_text("\n".join([header, *rows, *more]) + "\n")
    return blocks


def test_the_commands_run(section, here, capsys):
    commands = [shlex.split(line) for line in section["sh"][0].splitlines()]
    assert len(commands) == 5
    for words in commands:
        assert words[0] == "torchpure"
        extra = ["--steps", "4"] if words[1] == "fit" else []
        assert main([*words[1:], *extra]) == 0, capsys.readouterr().err
    assert (here / "predicted.parquet").stat().st_size > 0


def test_the_python_runs(section):
    space = {"tp": tp, "Path": Path}
    exec(section["python"][0], space)
    assert space["features"].shape == (152, 4)
    space |= {"net": nn.Linear(1, 1), "table": space["read_table"](Path("houses.csv"), ["area", "price"])}
    exec(section["python"][1], space)
    assert space["result"].history.shape == torch.Size([100])
    exec(section["python"][2], space)
    assert space["result"].history.shape == torch.Size([48])  # three epochs of 152 rows
