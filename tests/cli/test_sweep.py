"""`torchpure sweep` and files of options, from the command line."""

import io
import json
import re
import signal
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from torchpure.cli import _sweep_table, main
from torchpure.cli._sweep_table import live_table, make_table
from torchpure.runs import SweepProgress, load_run
from torchpure.runs.sweeps import _group

pytestmark = pytest.mark.usefixtures("here")
FAST = ["--hidden", "4", "--steps", "3"]
SPACE = ["--vary", "learning_rate=1e-3:1e-1:log:3", "--vary", "seed=0:2"]


def test_a_sweep_prints_its_best_member_and_its_folder(capsys):
    assert main(["sweep", "2*sin(x + 2*pi)", *SPACE, *FAST]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == [
        "best",
        "train",
        "test",
        "members",
        "18",
        "runs/sweep-2-sin-x-2-pi",
    ]
    assert err == ""


def test_json_is_the_only_output_and_quiet_prints_nothing(capsys):
    assert main(["sweep", "x", *SPACE, *FAST, "--json", "--out", "mine"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["status"], result["members"], result["steps"], result["directory"]) == (
        "done",
        {"done": 6},
        18,
        "mine",
    )
    assert result["best"] in [json.loads(line) for line in Path("mine/results.jsonl").read_text().splitlines()]
    assert main(["sweep", "x", *SPACE, *FAST, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.dist
def test_workers_give_the_bits_of_one_process(capsys):
    words = ["sweep", "x", *FAST, "--vary", "learning_rate=1e-3:1e-1:log:9", "--vary", "seed=0:2", "--quiet"]
    assert main([*words, "--out", "one"]) == main([*words, "--out", "two", "--workers", "1"]) == 0
    for name in ("results.jsonl", "curves.npz"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


EXECUTORS = {
    "both": (["--workers", "2", "--scheduler", "tcp://127.0.0.1:9"], "--workers and --scheduler: wanted one of them"),
    "none": (["--workers", "0"], "--workers: wanted 1 to 1024 processes, got 0"),
    "no address": (["--scheduler", "nowhere"], "--scheduler: 'nowhere' cannot be reached"),
}


@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.filterwarnings("ignore")  # of dask and tornado
def test_executors_that_cannot_be_had(name, capsys, monkeypatch):
    from torchpure.runs import _executors

    monkeypatch.setattr(_executors, "_SECONDS", 0.2)
    words, message = EXECUTORS[name]
    assert main(["sweep", "x", *SPACE, *FAST, *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_command_of_a_sweep_repeats_it(here):
    import shlex

    (here / "points.csv").write_text("a,y,z\n" + "".join(f"{i},{i * i},{-i}\n" for i in range(20)))
    words = [
        "points.csv",
        "--vary",
        "target=y|z",
        "--vary",
        "hidden=3|4,5",
        "--inputs",
        "a",
        "--stop-early",
        "2",
        "--seed",
        "4",
    ]
    assert main(["sweep", *words, "--steps", "9", "--quiet", "--out", "first"]) == 0
    command = json.loads(Path("first/config.json").read_text())["command"]
    assert main([*shlex.split(command)[1:], "--quiet", "--out", "second"]) == 0
    for name in ("results.jsonl", "config.json"):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes()


def test_random_members(capsys):
    words = ["sweep", "x", *FAST, "--vary", "lr=1e-3:1e-1:log", "--vary", "seed=0:9", "--seed", "3"]
    words += ["--sampler", "random", "--trials", "5", "--json"]
    assert main([*words, "--out", "a"]) == main([*words, "--out", "b"]) == 0
    assert Path("a/results.jsonl").read_bytes() == Path("b/results.jsonl").read_bytes()
    assert len(Path("a/results.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x"], "--vary: a sweep wants at least one option to vary"),
        (["x", "--vary", "learnin-rate=1|2"], "did you mean `learning_rate`"),
        (["x", "--vary", "lr=3:1:4"], "--vary: wanted the lower bound first, got 'lr=3:1:4'"),
        (["x", "--vary", "lr=-1|1"], "--learning-rate: wanted a number greater than 0, got '-1.0'"),
        (["x", "--vary", "activation=tan"], "--activation: wanted 'tanh'"),
        (["x", "--vary", "hidden=4|0"], "--hidden"),
        (["x", "--vary", "target=y|z"], "only a data file has columns"),
        (["x", *SPACE, "--lr", "0.1"], "learning_rate is given twice, as 'learning_rate=0.001|0.01|0.1' and as"),
        (["x", *SPACE, "--seed", "1"], "--vary: seed is given twice, as 'seed=0|1' and as --seed '1'; leave one out"),
        (["a.csv", "--vary", "target=y|z", "--target", "y"], "column is given twice"),
        (["x", "--vary", "lr=0.1,0.2"], "wanted a finite number for '0.1,0.2' in 'lr=0.1,0.2'; separate values with |"),
        (["x", "--vary", "seed=0|1,2"], "wanted an integer for '1,2' in 'seed=0|1,2'; separate values with |"),
        (["x", *SPACE, "--sampler", "sobol"], "--sampler: wanted grid, random or optuna"),
        (["x", *SPACE, "--sampler", "random"], "--trials: --sampler random wants a number"),
        (["x", *SPACE, "--trials", "3"], "--trials: a grid takes all points"),
        (["x", *SPACE, "--stop-early", "0"], "--stop-early: wanted a number of steps, at least 1, got 0"),
        (["foo", *SPACE], "unknown name `foo`"),
        (["x", *SPACE, "--out", "."], "exists already"),
        (["x", *SPACE, "--config", "none.toml"], "--config: 'none.toml': no such file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(here, capsys, words, message, listing):
    assert main(["sweep", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert err.startswith("torchpure: ") and err.count("\n") == 1
    assert listing(here) == []


def test_a_signal_ends_a_sweep_and_resume_goes_on(capsys, monkeypatch):
    monkeypatch.setattr(_group, "MAX_WINDOW", 1)
    run_chunks, count = _group._in_threads, []

    def interrupted(*args):
        count.append(1)
        if len(count) == 2:
            signal.raise_signal(signal.SIGINT)
        return run_chunks(*args)

    monkeypatch.setattr(_group, "_in_threads", interrupted)
    assert main(["sweep", "x", *SPACE, *FAST, "--out", "mine"]) == 130
    assert capsys.readouterr().err == "torchpure: interrupted; go on with `torchpure resume mine`\n"
    assert {json.loads(line)["status"] for line in Path("mine/results.jsonl").read_text().splitlines()} == {
        "interrupted"
    }
    assert main(["resume", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["members"] == {"done": 6}
    assert main(["info", "mine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["members"], found["best_run"]) == ("done", {"done": 6}, "mine/best")
    assert main(["resume", "mine"]) == 2
    assert "the sweep is done" in capsys.readouterr().err


def test_every_member_diverges(capsys):
    words = ["--optimizer", "sgd", "--schedule", "constant", "--steps", "20", "--vary", "lr=1e37|1e38"]
    assert main(["sweep", "x", *words]) == 1
    out, err = capsys.readouterr()
    assert "2 diverged" in out and "the loss of every member stopped being finite" in err


def test_saved_sweeps_are_listed_and_described(capsys):
    main(["sweep", "x", *SPACE, *FAST, "--quiet"])
    assert main(["ls"]) == main(["info", "runs/sweep-x"]) == main(["info", "runs/sweep-x/best"]) == 0
    out = capsys.readouterr().out
    assert "sweep-x" in out and "sweep of 6" in out and re.search(r"members +done 6\n", out)
    best = json.loads(Path("runs/sweep-x/best/result.json").read_text())
    assert main(["info", "runs/sweep-x", "--json"]) == main(["ls", "--json"]) == 0
    info, listed = map(json.loads, capsys.readouterr().out.splitlines())
    assert (info["target"], info["status"], info["members"], info["runs"]) == ("x", "done", {"done": 6}, 6)
    assert info["best"]["test_loss"] == best["test_loss"] == listed[0]["test_loss"]
    assert info["command"].startswith("torchpure sweep x --vary 'learning_rate=0.001|0.01|0.1'")
    assert listed[0]["members"] == 6


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "--input", "x.csv", "--output", "y.csv"],
        ["export", "--format", "onnx", "--output", "m.onnx"],
    ],
)
def test_a_sweep_where_a_run_is_wanted_names_its_best_run(words, capsys):
    main(["sweep", "x", *SPACE, *FAST, "--quiet", "--out", "mine"])
    for folder, message in (
        ("mine", "mine: is a sweep; its best run is `mine/best`"),
        (".", ".: is a folder of runs; name one, such as `mine`"),
    ):
        assert main([words[0], folder, *words[1:]]) == 2
        assert capsys.readouterr().err == f"torchpure: {message}\n"


def progress(**changes):
    fields = {"group": 0, "groups": 2, "label": "hidden=4", "step": 50, "steps": 100, "members": 64, "running": 60}
    return SweepProgress(
        **fields | {"all_members": 128, "finished": 4, "failed": 1, "best": 0.01, "best_index": 7} | changes
    )


def test_the_table_has_a_row_a_group():
    table = make_table(
        {0: (progress(step=100, running=0), 10.0, 0.0), 1: (progress(group=1, label="hidden=8"), 12.0, 10.0)}
    )
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    text = console.file.getvalue()
    assert "1/2 hidden=4" in text and "2/2 hidden=8" in text and "50/100" in text
    assert "1.6e+03" in text and "0:02" in text and "0:00" in text
    assert "best training loss 1.000e-02 (member 7)" in text and "4 of 128 finished, 1 failed" in text


@pytest.mark.parametrize(
    ("terminal", "quiet", "shown"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_the_table_is_for_terminals(monkeypatch, terminal, quiet, shown):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(_sweep_table, "PERIOD", 0)
    with live_table(quiet=quiet) as report:
        report(progress())
    assert ("4 of 128 finished" in stream.getvalue()) is shown


FILES = {  # the words of a command, a file of the same options, flags that win
    "fit": (
        ["fit", "x", "--hidden", "4,5", "--steps", "3", "--lr", "0.5"],
        'hidden = "4,5"\nsteps = 9\nlr = 0.5',
        ["--steps", "3"],
    ),
    "lists": (["fit", "x", "--hidden", "4,5", "--steps", "3"], "hidden = [4, 5]\nsteps = 3", []),
    "hyphens": (["fit", "x", "--weight-decay", "0.1", *FAST], 'weight-decay = 0.1\nhidden = "4"', ["--steps", "3"]),
    "sweep": (
        ["sweep", "x", *SPACE, *FAST],
        'hidden = "4"\nsteps = 3\nvary = ["learning_rate=1e-3:1e-1:log:3", "seed=0:2"]',
        [],
    ),
    "table": (
        ["sweep", "x", *SPACE, *FAST, "--stop-early", "5"],
        'hidden = "4"\nsteps = 3\nstop-early = 5\n[vary]\nlearning-rate = "1e-3:1e-1:log:3"\nseed = [0, 1]',
        [],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_options_equals_the_flags(name):
    words, text, flags = FILES[name]
    Path("options.toml").write_text(text)
    assert main([*words, "--out", "flags", "--quiet"]) == 0
    assert main([*words[:2], "--config", "options.toml", *flags, "--out", "file", "--quiet"]) == 0
    a, b = (json.loads(Path(folder, "config.json").read_text()) for folder in ("flags", "file"))
    source = b.pop("config_file")
    assert source["options"] == tomllib.loads(text) and len(source["sha256"]) == 64
    assert (a["config"], a["data"]) == (b["config"], b["data"])
    results = (
        ("results.jsonl", "best/params.safetensors") if words[0] == "sweep" else ("metrics.jsonl", "params.safetensors")
    )
    for result in results:
        assert Path("flags", result).read_bytes() == Path("file", result).read_bytes()


WRONG_FILES = {
    "nearest": ("learnin_rate = 1", "unknown key `learnin_rate`; did you mean `learning_rate`?"),
    "none near": ("zzzzz = 1", "unknown key `zzzzz`; wanted one of activation"),
    "no TOML": ("a = = 1", "wanted TOML with numbers, texts and lists"),
    "a date": ("steps = 2020-01-01", "wanted TOML with numbers, texts and lists"),
    "another type": ('steps = "many"', "--steps: wanted an integer, got 'many'"),
    "out of range": ("steps = 0", "--steps: wanted a number greater than or equal to 1"),
    "the folder": ('out = "a"', "unknown key `out`"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
@pytest.mark.parametrize("command", ["fit", "sweep"])
def test_wrong_files_of_options(name, command, capsys, here, listing):
    text, message = WRONG_FILES[name]
    Path("options.toml").write_text(text)
    assert (
        main([command, "x", "--config", "options.toml", *(["--vary", "seed=0:2"] if command == "sweep" else [])]) == 2
    )
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert listing(here) == ["options.toml"]


VARIES_AND_HAS_A_VALUE = {  # file, flags, whether it is taken
    "both in the file": ('hidden = "4"\nvary = "hidden=4|8"', [], False),
    "a flag beside the file": ('vary = "hidden=4|8"', ["--hidden", "4"], False),
    "--vary wins over the file": ('hidden = "4"', ["--vary", "hidden=4|8"], True),
}


@pytest.mark.parametrize("name", VARIES_AND_HAS_A_VALUE)
def test_an_option_that_varies_and_has_a_value_in_a_file(name, capsys):
    text, flags, taken = VARIES_AND_HAS_A_VALUE[name]
    Path("options.toml").write_text(f"steps = 3\n{text}")
    assert main(["sweep", "x", "--config", "options.toml", *flags, "--json"]) == (0 if taken else 2)
    out, err = capsys.readouterr()
    if taken:
        assert json.loads(out)["members"] == {"done": 2}
    else:
        assert "--vary: hidden is given twice, as 'hidden=4|8' and as --hidden '4'; leave one out" in err


def test_the_best_member_of_a_file_of_options_is_a_run():
    Path("options.toml").write_text('steps = 3\nvary = "seed=0:2"\nhidden = [4]')
    assert main(["sweep", "x", "--config", "options.toml", "--out", "all", "--quiet"]) == 0
    assert load_run("all/best").config.hidden == (4,)
