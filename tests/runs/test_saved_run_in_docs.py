"""The section of docs/training.md about saved runs works as it is printed."""

import re
import shlex
from pathlib import Path

import pytest

from torchpure.cli import main

TEXT = (
    (Path(__file__).parents[2] / "docs/training.md")
    .read_text(encoding="utf-8")
    .partition("## A saved run\n")[2]
    .partition("\n## ")[0]
)


@pytest.mark.compile
def test_the_section_about_saved_runs_works_as_it_is_printed(here):
    pytest.importorskip("plotly", reason="plotly is in the extra [report]")
    (here / "points.csv").write_text("x\n0.5\n1.5\n")
    (commands,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    for line in commands.splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
    assert (here / "sine.html").stat().st_size > 1e6
    (here / "sine.html").unlink()
    (here / "predicted.csv").unlink()
    space: dict = {}
    exec(compile(program, "training.md", "exec"), space)
    assert space["y"].shape == (50,)
    assert (here / "sine.html").exists()
    assert (here / "predicted.csv").read_text().startswith("x,y\n0.5,")
