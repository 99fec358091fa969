"""The commands for runs that are saved: predict, info, ls, export."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

import torchpure as tp
from torchpure.cli import main
from torchpure.data import read_columns
from torchpure.runs import configure, export, run
from torchpure.runs._loaded import load_data

FAST = {"hidden": "4", "steps": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs: of a file with the columns a, b and price, and of an expression."""
    folder = tmp_path_factory.mktemp("made")
    rows = "".join(f"{i},{i * i},{3 * i - 1}\n" for i in range(20))
    (folder / "houses.csv").write_text("area,b,price\n" + rows)
    run(configure({"target": str(folder / "houses.csv"), "column": "price"} | FAST), folder / "file")
    run(configure({"target": "x*y", "domain": "x=0:1,y=0:1"} | FAST), folder / "expression")
    return folder


@pytest.fixture
def runs(made, here):
    shutil.copytree(made, here / "runs")
    return here / "runs"


def fails(capsys, *words):
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_predict_finds_columns_by_name_and_writes_inputs_and_predictions(runs, suffix, capsys):
    (runs / "new.csv").write_text("b,id,area\n4,77,2\n9,78,3\n")
    output = f"predicted{suffix}"
    assert main(["predict", "runs/file", "--input", "runs/new.csv", "--output", output]) == 0
    assert capsys.readouterr().out == f"2 rows\n{output}\n"
    table = read_columns(runs.parent / output, ["area", "b", "price"])
    x = torch.tensor([[2.0, 4.0], [3.0, 9.0]], dtype=torch.float64)
    assert torch.equal(table[:, :2], x)
    assert torch.equal(table[:, 2], tp.load_run("runs/file").model(x))


def test_the_column_of_predictions_of_an_expression(runs, capsys):
    (runs / "new.csv").write_text("x,y\n1,2\n")
    words = ["predict", "runs/expression", "--input", "runs/new.csv", "--output", "out.csv"]
    assert main([*words, "--quiet"]) == 0
    assert (runs.parent / "out.csv").read_text().startswith("x,y,prediction")
    assert main([*words, "--column", "z", "--force"]) == 0
    assert (runs.parent / "out.csv").read_text().startswith("x,y,z")
    capsys.readouterr()
    assert "--column: `y` is an input of the model" in fails(capsys, *words, "--column", "y", "--force")


def test_predict_says_what_is_wrong(runs, capsys):
    (runs / "new.csv").write_text("Area,b\n1,2\n")
    words = ["--input", "runs/new.csv", "--output", "out.csv"]
    assert "needs column `area` (did you mean `Area`?)" in fails(capsys, "predict", "runs/file", *words)
    assert "did you mean `runs/file`?" in fails(capsys, "predict", "runs/fil", *words)
    (runs / "new.csv").write_text("area,b\n1,x\n")
    assert "wanted a number, got 'x'" in fails(capsys, "predict", "runs/file", *words)
    (runs / "new.csv").write_text("area,b\n1,2\n")
    same = ["--input", "runs/new.csv", "--output", "runs/new.csv"]
    assert "is a file that is read" in fails(capsys, "predict", "runs/file", *same)
    assert "ends with .csv" in fails(capsys, "predict", "runs/file", *words[:3], "out.txt")


EXISTING = {  # output -> what is said without --force, and with it; None: it is written
    "old.csv": ("exists already; wanted the name of a new file, or --force", None),
    "link.csv": ("exists already", "is a link; --force replaces regular files alone"),
    "dangling.csv": ("exists already", "is a link"),
    "pipe.csv": ("is no name for a file", "is no name for a file"),
    "a-folder": ("is no name for a file", "is no name for a file"),
    "runs/new.csv": ("is a file that is read", "is a file that is read"),
    "hard-link.csv": ("is a file that is read", "is a file that is read"),
    "runs/houses.csv": ("is a file that is read", "is a file that is read"),
}


@pytest.mark.parametrize("output", EXISTING)
@pytest.mark.parametrize("command", ["predict", "export", "report"])
def test_an_existing_file_is_replaced_by_force_alone_and_data_never(runs, capsys, command, output):
    if command == "report":
        pytest.importorskip("plotly", reason="plotly is in the extra [report]")
    here, config = runs.parent, runs / "file/config.json"
    config.write_text(re.sub(r'"target": "[^"]*houses.csv"', '"target": "runs/houses.csv"', config.read_text()))
    (runs / "new.csv").write_text("area,b\n1,2\n")
    (here / "old.csv").write_text("old")
    (here / "link.csv").symlink_to(here / "old.csv")
    (here / "dangling.csv").symlink_to(here / "absent")
    os.link(runs / "new.csv", here / "hard-link.csv")
    os.mkfifo(here / "pipe.csv")
    (here / "a-folder").mkdir()
    before = {path: path.read_bytes() for path in here.rglob("*.csv") if path.is_file()}
    words = {
        "predict": ["--input", "runs/new.csv"],
        "export": ["--format", "torch-export", "--compare", "runs/new.csv"],
        "report": [],
    }[command]
    without, forced = EXISTING[output]
    if command == "report" and output != "runs/houses.csv" and "is read" in without:  # it reads no such file
        without, forced = "exists already", None
    words = [command, "runs/file", *words, "--output", output]
    assert without in fails(capsys, *words)
    if forced is not None:
        assert forced in fails(capsys, *words, "--force")
    elif command != "export":  # an export takes long
        assert main([*words, "--force"]) == 0
        assert (here / output).read_bytes() != before.pop(here / output)
        del before[here / "link.csv"]  # it leads there
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json", "params.safetensors", "houses.csv"])
@pytest.mark.parametrize("command", ["predict", "export", "report"])
def test_an_output_does_not_replace_what_is_read(command, name, runs, made, capsys, monkeypatch):
    output = made / name if name.endswith(".csv") else runs / "file" / name
    before = output.read_bytes()
    monkeypatch.setattr("torchpure.runs._report.plotly_script", lambda: "")
    words = {
        "predict": ["--input", str(made / "houses.csv")],
        "export": ["--format", "torch-export"],
        "report": ["runs/expression"],
    }
    error = fails(capsys, command, "runs/file", *words[command], "--output", str(output))
    assert "is a file that is read; wanted another name" in error
    assert output.read_bytes() == before


def test_a_configuration_without_its_points_is_refused(runs, capsys):
    path = runs / "expression/config.json"
    text = json.loads(path.read_text())
    for name in ("domain", "train_points", "test_points"):
        path.write_text(json.dumps(text | {"config": text["config"] | {name: None}}))
        for command in (["report"], ["export", "--format", "torch-export", "--output", "x.pt2"]):
            assert f"an expression needs {name}" in fails(capsys, command[0], "runs/expression", *command[1:])


def test_info_of_a_run_a_file_and_parameters(runs, capsys):
    assert main(["info", "runs/file", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["status"], found["steps"]) == ("run", "done", "3 of 3")
    assert (found["column"], found["inputs"]) == ("price", {"area": "number", "b": "number"})
    assert main(["info", "runs/file"]) == 0
    out = capsys.readouterr().out
    assert "network     4 silu, float32\n" in out and "inputs      area number, b number\n" in out
    assert main(["info", "runs/houses.csv"]) == 0
    assert "columns  area, b, price\n" in capsys.readouterr().out
    assert main(["info", "runs/file/params.safetensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tensors"]["core.0.weight"] == "float32 of shape (4, 2)"
    (runs / "sweep").mkdir()
    (runs / "sweep/results.jsonl").write_text('{"learning_rate": 0.1, "loss": 2.0}\n')
    assert main(["info", "runs/sweep", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["columns"] == ["learning_rate", "loss"]
    assert main(["info", "runs/file/checkpoints", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["step"], found["leaves"]["unreported"]) == ("checkpoint", 3, "float32 of shape (0,)")
    assert main(["info", f"runs/file/checkpoints/{Path(found['path']).name}"]) == 0
    assert "metrics" in capsys.readouterr().out
    (Path(found["path"]) / "manifest.json").write_text("{}")
    assert "manifest.json" in fails(capsys, "info", "runs/file/checkpoints")
    (runs / "x.txt").write_text("")
    assert "wanted a run's folder, a checkpoint, a data file" in fails(capsys, "info", "runs/x.txt")
    assert "did you mean `runs/file`?" in fails(capsys, "info", "runs/files")


def test_ls_lists_runs_of_every_state(runs, capsys):
    shutil.copytree(runs / "file", runs / "going-on")
    (runs / "going-on/metrics.jsonl").write_text('{"step": 7, "loss": 0.25}\n{"st')
    (runs / "broken[red]\x1b").mkdir()
    os.mkfifo(runs / "broken[red]\x1b/config.json")
    (runs / "empty").mkdir()
    (runs / "sweep").mkdir()
    (runs / "sweep/results.jsonl").write_text("")
    (runs / "link").symlink_to(runs / "file")
    os.utime(runs / "file/metrics.jsonl", (0, 0))
    assert main(["ls", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {name: entry["status"] for name, entry in found.items()} == {
        "file": "done", "expression": "done", "going-on": "unfinished", "broken[red]\x1b": "unreadable", "sweep": "sweep",
    }  # fmt: skip
    assert (found["going-on"]["steps"], found["going-on"]["train_loss"]) == (7, 0.25)
    assert "is a pipe" in found["broken[red]\x1b"]["problem"]
    assert list(found)[-1] == "file"
    assert main(["ls", "runs"]) == 0
    table = capsys.readouterr().out
    assert "broken[red] " in table and "\x1b" not in table
    assert "2.500e-01" in table
    assert main(["ls", "runs/empty"]) == 0
    assert capsys.readouterr().out == "no runs in runs/empty\n"
    assert "did you mean `runs/sweep`?" in fails(capsys, "ls", "runs/sweeps")


@pytest.mark.compile
def test_export_writes_a_model_for_any_number_of_rows(runs, capsys):
    assert main(["export", "runs/file", "--format", "torch-export", "--output", "m.pt2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("largest difference ") and out[0].endswith("on 4 rows") and out[1] == "m.pt2"
    loaded = tp.load_run("runs/file")
    x = load_data(loaded).train.x
    exported = torch.export.load("m.pt2").module()
    for rows in (1, 2, 5):
        torch.testing.assert_close(exported(x[:rows]), loaded.model(x[:rows]))
    words = ["export", "runs/file", "--format", "torch-export", "--output", "m.pt2"]
    assert "exists already" in fails(capsys, *words)
    assert main([*words, "--compare", "runs/houses.csv", "--force"]) == 0
    assert "on 20 rows" in capsys.readouterr().out


@pytest.mark.compile
def test_export_to_onnx_agrees_with_the_model(runs):
    pytest.importorskip("onnxruntime", reason="onnx, onnxscript and onnxruntime are in the extra [export]")
    done = export("runs/file", "onnx", "m.onnx", compare="runs/houses.csv")
    assert done.rows == 20
    assert done.difference < 1e-4  # the model computes in float32, and prices go up to 56
    assert b"site-packages" not in (runs.parent / "m.onnx").read_bytes()


def test_export_says_what_is_wrong(runs, capsys, monkeypatch):
    words = ["export", "runs/file", "--output", "m.onnx", "--format"]
    assert "wanted torch-export or onnx, got 'onix'" in fails(capsys, *words, "onix")
    torch_export = ["--format", "torch-export"]
    (runs / "houses.csv").rename(runs / "moved.csv")
    config = runs / "file/config.json"
    config.write_text(re.sub(r'"target": "[^"]*houses.csv"', '"target": "runs/houses.csv"', config.read_text()))
    assert (
        "no such file or directory; wanted a data file, or a folder of such files; --compare FILE names other data"
        in fails(capsys, *words[:3], "m.pt2", *torch_export)
    )
    (runs / "moved.csv").rename(runs / "houses.csv")
    assert "cannot be written (no such file" in fails(capsys, *words[:3], "no/m", *torch_export)
    assert "is no name for a file" in fails(capsys, *words[:3], "runs", *torch_export)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "needs onnx: pip install 'torchpure[export]'" in fails(capsys, *words, "onnx")
    assert not (runs.parent / "m.onnx").exists()
