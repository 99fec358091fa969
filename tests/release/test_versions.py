"""`tp.show_versions`: what a report about a problem must say."""

import sys
from pathlib import Path

import numpy
import torch

import torchpure as tp
from torchpure import _versions

LINES = [
    "torchpure",
    "Python",
    "torch",
    "numpy",
    "optree",
    "safetensors",
    "pyarrow",
    "pydantic",
    "typer",
    "rich",
    "matplotlib",
]
LINES += ["system", "processor", "compiler", "threads", "devices", "programs", "environment"]


def shown(capsys):
    assert tp.show_versions() is None
    return dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())


def test_each_line_says_one_thing(capsys):
    lines = shown(capsys)
    assert [*lines] == LINES
    assert lines["Python"].startswith(sys.version.split()[0]) and lines["numpy"] == numpy.__version__
    assert lines["torch"].startswith(torch.__version__) and lines["devices"].startswith("cpu")
    assert lines["threads"].startswith(f"{torch.get_num_threads()} of torch")


def test_the_cache_and_the_environment_are_described_without_the_home(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCHPURE_CACHE", str(tmp_path / "programs"))
    (tmp_path / "programs").mkdir(mode=0o700)
    (tmp_path / "programs/a.so").write_bytes(bytes(3_000_000))
    lines = shown(capsys)
    assert lines["programs"] == "1 files, 3.0 MB in ~/programs"
    assert "TORCHPURE_CACHE=~/programs" in lines["environment"] and str(tmp_path) not in str(lines)


def test_a_machine_without_a_compiler_is_described_too(capsys, monkeypatch):
    for command, said in (("'", "none: jit: CXX is not a command"), ("/no/such/compiler", "/no/such/compiler: ")):
        monkeypatch.setenv("CXX", command)
        assert shown(capsys)["compiler"].startswith(said)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    assert shown(capsys)["compiler"] == "none: no C++ compiler"


def test_a_package_that_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(_versions, "_PACKAGES", ("no-such-package",))
    assert shown(capsys)["no-such-package"] == "not installed"


def test_accelerators_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    assert _versions._accelerators() == ["cuda:0 (GPU 0)", "cuda:1 (GPU 1)"]
    assert Path(_versions.__file__).parent == Path(tp.__file__).parent
