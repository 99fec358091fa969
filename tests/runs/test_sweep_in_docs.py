"""The section of docs/training.md about sweeps from the shell works as it is printed."""

import json
import re
import shlex
from pathlib import Path

import pytest

from torchpure.cli import main
from torchpure.runs.sweeps._space import OPTIONS

TEXT = (
    (Path(__file__).parents[2] / "docs/training.md")
    .read_text(encoding="utf-8")
    .partition("## A sweep from the shell\n")[2]
    .partition("\n## ")[0]
)


@pytest.mark.compile
def test_the_section_about_sweeps_works_as_it_is_printed(here):
    (here / "points.csv").write_text("x\n0.5\n1.5\n")
    (commands,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    for line in commands.splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
    assert (here / "predicted.csv").read_text().startswith("x,y\n0.5,")
    rows = [json.loads(line) for line in (here / "rates/results.jsonl").read_text().splitlines()]
    assert len(rows) == 32 and min(row["test_loss"] for row in rows) < 0.1
    space: dict = {}
    exec(compile(program, "training.md", "exec"), space)
    assert len(space["found"].rows) == 12


def test_the_section_names_all_options_that_vary():
    names = {{"column": "target"}.get(name, name) for name in OPTIONS}
    assert [name for name in names if f"`{name}`" not in TEXT] == []
