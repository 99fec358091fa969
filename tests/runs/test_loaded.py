"""Runs that are read again: the model has the same bits, and a damaged folder is an error of one line."""

import json
import os
import shutil

import numpy as np
import pytest
import torch

import torchpure as tp
from torchpure.errors import InputError
from torchpure.runs import configure, load_run, read_run, run
from torchpure.runs._loaded import load_data

FAST = {"hidden": "4", "steps": 5, "train_points": 8, "test_points": 4}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "a"
    run(configure({"target": "sin(x)"} | FAST), folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.mark.parametrize(
    "options",
    [
        {"target": "x"},
        {"target": "x*z", "domain": "x=0:1,z=0:1", "dtype": "float64"},
        {"target": "x", "preset": "article"},
    ],
    ids=["one input", "two inputs", "article"],
)
def test_the_model_of_a_loaded_run_has_the_bits_that_it_had_at_the_end(options, here):
    done = run(configure(FAST | options))
    loaded = tp.load_run(done.directory)
    data = load_data(loaded)
    assert float((loaded.model(data.test.x) - data.test.y).square().mean()) == done.fit.test_loss
    assert loaded.model(data.test.x).dtype == torch.float64
    assert list(loaded.metrics["loss"]) == list(done.fit.losses)
    assert list(loaded.metrics["step"]) == [1, 2, 3, 4, 5]
    assert loaded.result["seconds"] == pytest.approx(done.fit.seconds)
    assert (loaded.status, loaded.config.target) == ("done", options["target"])
    assert len(repr(loaded).splitlines()) <= 12
    assert options["target"] in repr(loaded)


def test_metrics_of_any_names_are_read(copy):
    lines = [
        {"step": 1, "loss": 4.0, "learning_rate": 0.1, "note": "first"},
        {"step": 2, "loss": None, "gradient_norms": {"0.weight": 2.0}},
        {"step": 4, "loss": 1.0, "validation_loss": 3.0},
    ]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_run(copy)
    expected = {
        "loss": [4, np.nan, 1],
        "learning_rate": [0.1, np.nan, np.nan],
        "gradient_norms/0.weight": [np.nan, 2, np.nan],
        "validation_loss": [np.nan, np.nan, 3],
    }
    assert found.metrics.keys() == {"step"} | expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found.metrics[name], values)
    assert found.status == "unfinished"


def test_a_run_that_goes_on_is_unfinished_and_its_incomplete_last_line_left_out(copy):
    (copy / "metrics.jsonl").write_text('{"step": 1, "loss": 4.0}\n{"step": 2, "lo')
    (copy / "params.safetensors").unlink()
    found = read_run(copy)
    assert (found.status, list(found.metrics["loss"])) == ("unfinished", [4.0])
    assert "not known yet" in repr(found)
    with pytest.raises(InputError, match=r"params\.safetensors: not found"):
        load_run(copy)


def test_steps_that_a_resumed_run_repeats_replace_the_old_ones(copy):
    lines = [(1, 4.0), (2, 3.0), (3, 2.0), (2, 2.5)]
    text = "".join(f'{{"step": {step}, "loss": {loss}}}\n' for step, loss in lines)
    (copy / "metrics.jsonl").write_text(text)
    found = read_run(copy).metrics
    assert (list(found["step"]), list(found["loss"])) == ([1, 2], [4.0, 2.5])


def edit(name, change):
    def apply(folder):
        value = json.loads((folder / name).read_text())
        change(value)
        (folder / name).write_text(json.dumps(value))

    return apply


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def replace(name, make):
    def apply(folder):
        (folder / name).unlink()
        make(folder / name)

    return apply


def header(change):
    def apply(folder):
        path = folder / "params.safetensors"
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        spec = json.loads(content[8 : 8 + length])
        change(spec)
        text = json.dumps(spec).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])

    return apply


def truncate(name, size):
    return lambda folder: os.truncate(folder / name, size)


NESTED = b"[" * 100_000
CONFIG, METRICS, PARAMS, RESULT = "config.json", "metrics.jsonl", "params.safetensors", "result.json"
DAMAGES = {
    "no config": (replace(CONFIG, lambda path: None), r"config\.json: not found"),
    "config is a pipe": (replace(CONFIG, os.mkfifo), r"config\.json: is a pipe"),
    "config is a link": (replace(CONFIG, lambda path: path.symlink_to("/etc/passwd")), r"is a link; links are not foll"),
    "config is a folder": (replace(CONFIG, lambda path: path.mkdir()), r"config\.json: is a folder"),
    "config is huge": (truncate(CONFIG, 2**40), r"has 1099511627776 bytes; at most"),
    "config is nested": (write(CONFIG, NESTED), r"config\.json: not the JSON"),
    "config is cut": (truncate(CONFIG, 100), r"config\.json: not the JSON"),
    "config is no object": (write(CONFIG, b"[1]"), r"`the whole file`: input should be"),
    "config is not UTF-8": (write(CONFIG, b"\xff\xfe\x00"), r"config\.json: not the JSON"),
    "config has a huge number": (write(CONFIG, b'{"torch": ' + b"9" * 5000 + b"}"), r"config\.json: not the JSON"),
    "an unknown option": (edit(CONFIG, lambda value: value["config"].update(momentum=1)), r"`config\.momentum`: extra"),
    "a wrong option": (edit(CONFIG, lambda value: value["config"].update(steps="x\ny")), r"`config\.steps`: input sho"),
    "too large": (edit(CONFIG, lambda value: value["config"].update(hidden=[4096] * 16)), r"would have .* parameters"),
    "no data": (edit(CONFIG, lambda value: value.pop("data")), r"`data`: field required"),
    "inputs are no names": (edit(CONFIG, lambda value: value["data"].update(inputs=[1])), r"`data\.inputs\.0`: .* got 1"),
    "metrics are a pipe": (replace(METRICS, os.mkfifo), r"metrics\.jsonl: is a pipe"),
    "metrics are huge": (truncate(METRICS, 2**40), r"metrics\.jsonl: has 1099511627776 bytes"),
    "metrics are zeros": (truncate(METRICS, 2**22), r"a line has more than"),
    "a line is no JSON": (write(METRICS, b"{}x\n"), r"line 1 is not JSON"),
    "a line is nested": (write(METRICS, NESTED + b"\n"), r"line 1 is not JSON"),
    "a line is no object": (write(METRICS, b"3\n"), r"line 1: wanted an object with numbers, got 3"),
    "a step is no integer": (write(METRICS, b'{"step": 1.5}\n'), r"line 1: wanted a `step`, an integer from 0, got 1\.5"),
    "a loss is a list": (write(METRICS, b'{"step": 1, "loss": [2]}\n'), r"line 1, `loss`: wanted a number, got \[2\]"),
    "a status is a number": (write(METRICS, b'{"status": 3}\n'), r"the last line: wanted a `status`, a word, got 3"),
    "result is a pipe": (replace(RESULT, os.mkfifo), r"result\.json: is a pipe"),
    "result is no object": (write(RESULT, b"[]"), r"result\.json: wanted an object with numbers, got \[\]"),
    "seconds are a word": (write(RESULT, b'{"seconds": "x"}'), r"result\.json, `seconds`: wanted a number, got x"),
    "parameters are cut": (truncate(PARAMS, 300), r"params\.safetensors: .*truncated or damaged"),
    "the end is missing": (truncate(PARAMS, 900), r"params\.safetensors: damaged"),
    "parameters are empty": (truncate(PARAMS, 0), r"0 bytes are not a whole safetensors file"),
    "parameters are huge": (truncate(PARAMS, 2**40), r"has 1099511627776 bytes; at most"),
    "a tensor is missing": (
        edit(CONFIG, lambda value: value["config"].update(hidden=[4, 4])),
        r"`core\.2\.bias`: config\.json asks for float32 of shape \(4,\), the file has float32 of shape \(1,\)",
    ),
    "a tensor is renamed": (
        header(lambda spec: spec.update({"../x": spec.pop("input_mean")})),
        r"`\.\./x`: config\.json asks for no such tensor",
    ),
    "a tensor is no tensor": (header(lambda spec: spec.update(input_mean=3)), r"the file has no description of a tensor"),
    "other data": (edit(CONFIG, lambda value: value["data"].update(inputs=["x", "y"])), r"`data\.inputs` and `data\.preprocessing` have different columns"),
    "a column of an unknown kind": (
        edit(CONFIG, lambda value: value["data"]["preprocessing"]["inputs"][0].update(kind="noise")),
        r"`data\.preprocessing\.inputs\.0\.kind`: input should be",
    ),
    "classes without names": (
        edit(CONFIG, lambda value: value["data"]["preprocessing"]["targets"][0].update(kind="classes")),
        r"`data\.preprocessing\.targets\.0`: .*classes needs 2 categories",
    ),
    "another width": (
        edit(CONFIG, lambda value: value["data"]["preprocessing"]["inputs"][0].update(kind="calendar")),
        r"`core\.0\.weight`: .*\(4, 7\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_folder_is_an_error_of_one_line(damage, message, copy):
    damage(copy)
    with pytest.raises(InputError, match=message) as caught:
        load_run(copy)
    assert len(str(caught.value)) < 600


def test_parameters_that_are_not_finite_are_refused(copy):
    content = (copy / "params.safetensors").read_bytes()
    (copy / "params.safetensors").write_bytes(content[:-8] + np.array([np.nan]).tobytes())
    with pytest.raises(InputError, match="has numbers that are not finite; the file was changed"):
        load_run(copy)


def test_a_path_that_is_no_folder_names_the_nearest_one(saved, here):
    shutil.copytree(saved, here / "runs/sine")
    for path, message in (
        ("runs/sin", r"runs/sin: not found \(did you mean `runs/sine`\?\); wanted a run's folder"),
        ("sine", r"sine: not found \(did you mean `runs/sine`\?\)"),
        ("runs/sine/config.json", r"is a file; wanted a run's folder"),
        ("a\0b", "wanted a run's folder"),
        ("x" * 5000, "wanted a run's folder"),
    ):
        with pytest.raises(InputError, match=message):
            load_run(path)


def test_data_that_changed_since_the_run_are_refused(here):
    (here / "d.csv").write_text("x,y\n" + "".join(f"{i},{2 * i}\n" for i in range(20)))
    done = run(configure({"target": "d.csv", "column": "y", "hidden": "4", "steps": 2}))
    assert len(load_data(load_run(done.directory)).test.y) == 4
    (here / "d.csv").write_text("x,y\n" + "".join(f"{i},{3 * i}\n" for i in range(20)))
    with pytest.raises(InputError, match=r"d\.csv: has changed since the run"):
        load_data(load_run(done.directory))
