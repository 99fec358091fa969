"""Folders of data files in the commands."""

import json
import shutil
from pathlib import Path

import pytest

from torchpure.cli import main
from torchpure.runs import _run, configure
from torchpure.runs.fits import _points

pytestmark = pytest.mark.usefixtures("here")
FIT = ["fit", "data", "--target", "y", "--steps", "30", "--hidden", "4", "--schedule", "constant"]


@pytest.fixture(autouse=True)
def _data(here, monkeypatch):
    for name in ("draw_loss", "draw_fit"):  # they take most of the time of a short run
        monkeypatch.setattr(_run, name, lambda path, *others: None)
    Path("data").mkdir()
    rows = [f"{i % 7},c{i % 2},{0.5 * i - 3}" for i in range(90)]
    for number in range(3):
        part = rows[30 * number : 30 * number + 30]
        Path(f"data/part-{number}.csv").write_text("\n".join(["x,c,y", *part]) + "\n")
    Path("whole.csv").write_text("\n".join(["x,c,y", *rows]) + "\n")


def losses(folder):
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("target", ["data", "data/", "data/*.csv", "./data"])
def test_a_folder_gives_the_run_of_the_joined_file(target):
    for name, source in (("joined", "whole.csv"), ("made", target)):
        assert main([FIT[0], source, *FIT[2:], "--out", name]) == 0
    assert losses("made") == losses("joined")


def test_a_folder_in_blocks_is_resumed_and_predicted(monkeypatch, capsys):
    monkeypatch.setattr(_points, "memory_needed", lambda path, columns: 2**40)
    blocks = ["--batch-size", "8", "--out"]
    assert main([*FIT, *blocks, "made"]) == 0 and main([*FIT, "--steps", "50", *blocks, "whole"]) == 0
    assert main(["resume", "made", "--steps", "50"]) == 0
    assert losses("made") == losses("whole")
    assert main(["predict", "made", "--input", "data", "--output", "out.csv"]) == 0
    assert len(Path("out.csv").read_text().splitlines()) == 91
    assert main(["predict", "made", "--input", "data", "--output", "data/part-1.csv", "--force"]) == 2
    assert "is a file that is read" in capsys.readouterr().err
    assert main(["info", "data"]) == 0 and "files    3" in capsys.readouterr().out
    shutil.copy("data/part-1.csv", "data/part-3.csv")
    assert main(["resume", "made", "--steps", "60"]) == 2
    assert "data/: has changed since the run made" in capsys.readouterr().err


def test_a_name_of_the_domain_is_an_expression_though_a_folder_has_it():
    Path("x").mkdir()
    assert configure({"target": "x"}).target == "x"
    assert configure({"target": "data"}).target == "data/"
    for text in ("", "  "):
        assert configure({"target": text}).target == ""
