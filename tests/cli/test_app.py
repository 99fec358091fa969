import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from daily import proof

from torchpure.cli import main
from torchpure.runs import _run

FAST = ["--steps", "3", "--hidden", "4"]
START = [sys.executable, "-c", "import sys; from torchpure.cli import main; sys.exit(main())", "fit"]


pytestmark = pytest.mark.usefixtures("here")


def test_help_and_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("torchpure ")
    assert main([]) == 0
    assert "fit" in capsys.readouterr().out
    for option in ("--help", "-h"):
        assert main(["fit", option]) == 0
        assert "--train-points" in capsys.readouterr().out


def test_a_fit_prints_its_losses_and_its_folder(capsys):
    assert main(["fit", "2*sin(x + 2*pi)", *FAST]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["train", "test", "test", "3", "runs/2-sin-x-2-pi"]
    assert err == ""


def test_json_is_the_only_output_on_stdout(capsys):
    assert main(["fit", "x", "--json", "--out", "mine", "--seed", "5", *FAST]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["status"], result["steps"], result["seed"], result["directory"]) == ("done", 3, 5, "mine")
    assert result["parameters"] == 13
    assert result["train_loss"] > 0
    assert err == ""


def test_quiet_prints_nothing(capsys):
    assert main(["fit", "x", "--quiet", *FAST]) == 0
    assert capsys.readouterr() == ("", "")


def test_every_option_reaches_the_configuration(here):
    words = "--domain t=0:2 --train-points 7 --test-points 3 --hidden 4,3 --activation relu --optimizer sgd --lr 0.5"
    more = "--validation-points 0.5 --loss mae --batch-size 2 --weight-decay 0.1 --schedule constant --steps 2 --seed 9 --dtype float64 --device cpu --out mine --quiet"
    assert main(["fit", "t", *words.split(), *more.split()]) == 0
    config = json.loads((here / "mine/config.json").read_text())["config"]
    assert config == {
        "target": "t",
        "column": None,
        "inputs": None,
        "categorical": None,
        "categories": None,
        "missing": None,
        "unseen": None,
        "dates": None,
        "max_memory": None,
        "mesh": None,
        "domain": "t=0:2",
        "train_points": 7,
        "test_points": 3,
        "validation_points": 0.5,
        "preset": None,
        "hidden": [4, 3],
        "activation": "relu",
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "weight_decay": 0.1,
        "schedule": "constant",
        "loss": "mae",
        "batch_size": 2,
        "steps": 2,
        "seed": 9,
        "checkpoint_every": 1000,
        "threads": 0,
        "dtype": "float64",
        "device": "cpu",
    }


@pytest.mark.parametrize("words", [["-x**2"], ["--quiet", "-x"], ["--", "-x"], ["-sin(x)", "--domain", "-1:1"]])
def test_an_expression_can_start_with_a_minus(words):
    assert main(["fit", *FAST, *words] if "--" in words else ["fit", *words, *FAST]) == 0


def test_a_fit_of_a_file(here, capsys):
    (here / "points.csv").write_text("a,b,y\n" + "".join(f"{i},{i % 3},{i * i}\n" for i in range(10)))
    assert main(["fit", "points.csv", "--target", "y", "--inputs", "a", "--json", *FAST]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["directory"], result["inputs"]) == ("runs/points-y", {"a": "number"})


def test_a_fit_of_a_file_says_what_each_column_became(here, capsys):
    rows = "".join(f"{'uvw'[i % 3]},{i},2026-01-{i + 1:02},{i % 2},{i * i}\n" for i in range(20))
    (here / "points.csv").write_text("d,area,built,c,y\n" + rows)
    words = ["--dates", "calendar", "--categories", "c", *FAST]
    assert main(["fit", "points.csv", "--target", "y", *words, "--out", "mine"]) == 0
    shown = "d text (3 categories), area number, built date, c number (2 categories)"
    assert capsys.readouterr().out.startswith(f"inputs      {shown}\ntrain loss ")
    assert main(["info", "mine"]) == 0
    assert f"\ninputs      {shown}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit"], "Missing argument 'TARGET'"),
        (["other"], "No such command 'other'"),
        (["fit", "x", "--stepz", "3"], "No such option: --stepz"),
        (["fit", "x", "--steps", "abc"], "torchpure: --steps: wanted an integer, got 'abc'\n"),
        (["fit", "x", "--steps=1e5"], "torchpure: --steps: wanted an integer, got '1e5'\n"),
        (["fit", "x", "--lr", "fast"], "torchpure: --lr: wanted a number, got 'fast'\n"),
        (["fit", "x", "--learning-rate", "1,5"], "torchpure: --learning-rate: wanted a number, got '1,5'\n"),
        (["fit", "x", "--steps"], "--steps"),
        (["fit", "x", "y"], "unexpected extra argument"),
        (["fit", "foo"], "unknown name `foo`"),
        (["fit", "foo\n\x1b[31mbar"], "not plain ASCII"),
        (["fit", "log(-1)"], "not finite"),
        (["fit", "x", "--hidden", "10000000"], "--hidden: wanted a number less than"),
        (["fit", "x", "--lr", "nan"], "--learning-rate: wanted a finite number"),
        (["fit", "x", "--device", "nowhere"], "--device: 'nowhere'"),
        (["fit", "x", "--device", "hpu"], "--device: 'hpu' cannot be used here"),
        (["fit", "x", "--out", "."], "exists already"),
        (["fit", "x", "--out", ""], "'' is not a name for a folder"),
        (["fit", "x", "--out", "a\0b"], "is not a name for a folder"),
        (["fit", "x", "--out", "none/mine"], "'none' does not exist"),
        (["fit", "x", "--out", "n" * 300], "file name too long"),
        (["fit", "none.csv", "--target", "y"], "none.csv: no such file"),
        (["fit", "x", "--target", "y"], "only a data file has columns"),
        (["fit", "x", "--batch-size", "41"], "--batch-size: wanted at most 40, the training points, got 41"),
        (["fit", "x", "--missing", "drop"], "--missing: only a data file has columns"),
        (["fit", "z" * 5000], "5000 characters"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(here, capsys, words, message, listing):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("torchpure: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert len(err) < 1300
    assert listing(here) == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(28, "No space left on device", "runs/x"), 2, "runs/x: no space left on device"),
        (OSError("odd"), 2, "odd"),
        (MemoryError(), 2, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was saved"),
    ],
)
def test_an_error_during_a_run_leaves_nothing(here, capsys, monkeypatch, error, code, message, listing):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(_run, "fit", fail)
    assert main(["fit", "x"]) == code
    assert message in capsys.readouterr().err
    assert listing(here) == []


def test_a_loss_that_is_not_finite_is_reported_in_one_line(capsys):
    assert main(["fit", "x", "--optimizer", "sgd", "--learning-rate", "1e38", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "diverged"
    assert "try a smaller --learning-rate" in err
    assert err.count("\n") == 1


def wait_for_training(here):
    deadline = time.monotonic() + 300  # a busy machine takes long to start
    while not any(path.stat().st_size for path in here.glob("runs/*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code", "status"), [(signal.SIGINT, 130, "interrupted"), proof(signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_saves_the_last_parameters(here, number, code, status, listing):
    words = ["x", "--steps", "10000000", "--hidden", "4", "--json"]
    with subprocess.Popen([*START, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_training(here)
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    assert process.returncode == code
    result = json.loads(out)
    assert (result["status"], result["directory"]) == (status, "runs/x")
    assert result["steps"] >= 1
    last = json.loads((here / "runs/x/metrics.jsonl").read_text().splitlines()[-1])
    assert (last["status"], last["steps"]) == (status, result["steps"])
    assert err.count("\n") == 1
    assert listing(here / "runs") == ["x"]


@pytest.mark.parametrize(
    ("number", "code", "word", "gap"),
    [proof(signal.SIGINT, 130, "interrupted", 0.01), (signal.SIGTERM, 143, "terminated", 0.2)],
)
def test_many_signals_end_in_one_line(here, number, code, word, gap):
    words = [sys.executable, "-m", "torchpure", "fit", "x", "--steps", "10000000", "--hidden", "4"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_training(here)
        for _ in range(4):
            process.send_signal(number)
            time.sleep(gap)
        _, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert err.startswith(f"torchpure: {word}") and err.count("\n") == 1
    assert not list(here.glob("runs/.*"))


def test_an_error_after_a_signal_is_an_interruption(capsys, monkeypatch):
    def fail(*arguments):
        os.kill(os.getpid(), signal.SIGINT)  # recorded by the loop
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("an import that was interrupted") from None

    monkeypatch.setattr(_run, "fit", fail)
    assert main(["fit", "x"]) == 130
    assert capsys.readouterr().err == "torchpure: interrupted; nothing was saved\n"


OUTPUTS = {
    "full": ("/dev/full", 2, "torchpure: stdout: no space left on device; the run is saved\n"),
    "closed pipe": (None, 0, ""),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_cannot_be_written(here, name, listing, monkeypatch, capsys):
    path, code, message = OUTPUTS[name]
    if path is None:
        reader, descriptor = os.pipe()
        os.close(reader)
    else:
        descriptor = os.open(path, os.O_WRONLY)
    with os.fdopen(descriptor, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["fit", "x", *FAST]) == code
        monkeypatch.undo()
    assert capsys.readouterr().err == message
    assert listing(here / "runs") == ["x"]


def test_a_name_that_the_terminal_cannot_show_is_escaped(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main(["fit", "x", "--out", "é\udcff", *FAST]) == 0
    assert sys.stdout.buffer.getvalue().endswith(b"\n\\xe9\\udcff\n")


def test_parameters_that_cannot_be_written(here, capsys, monkeypatch):
    def refuse(path, content):
        if path.name == "params.safetensors":
            raise OSError(27, "File too large", str(path))
        write(path, content)

    write = _run.replace_file
    monkeypatch.setattr(_run, "replace_file", refuse)
    assert main(["fit", "x", *FAST]) == 2
    err = capsys.readouterr().err
    assert "params.safetensors: file too large; step 3 is saved: `torchpure resume runs/x` goes on from it" in err
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert main(["resume", "runs/x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "done"


def test_default_seeds_fit_the_article_target(capsys):
    losses = []
    for seed in range(3):
        assert main(["fit", "2*sin(x + 2*pi)", "--seed", str(seed), "--json"]) == 0
        losses.append(json.loads(capsys.readouterr().out)["test_loss"])
    assert max(losses) < 1e-2
