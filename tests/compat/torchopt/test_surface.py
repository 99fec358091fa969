"""Every public name of the installed torchopt is in the table of docs/compat-torchopt.md, and has its signature."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import torchpure.compat.torchopt as ours

theirs = pytest.importorskip("torchopt")

PAGE = (Path(__file__).parents[3] / "docs" / "compat-torchopt.md").read_text(encoding="utf-8")
SUBMODULES = sorted(
    name.removeprefix("torchopt.")
    for _, name, _ in pkgutil.walk_packages(theirs.__path__, "torchopt.")
    if not any(part.startswith("_") for part in name.split(".")) and ".lts" not in name
)


def public_names(module):
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("torchopt")
    )


def rows():
    """Return {module: {name: verdict}} of the page."""
    table = {}
    for module, names, verdict in re.findall(r"^\| `([\w.]+)` \| (.*?) \| (same|better|refused)\b", PAGE, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            table.setdefault(module, {})[name] = verdict
    return table


@pytest.mark.parametrize("module", ["torchopt", *(f"torchopt.{name}" for name in SUBMODULES)])
def test_each_public_name_is_here_and_in_the_table(module):
    original = importlib.import_module(module)
    copy = importlib.import_module(f"torchpure.compat.{module}")
    names = public_names(original)
    assert [name for name in names if not hasattr(copy, name)] == []
    listed = rows().get(module, {})
    if module == "torchopt.pytree":
        names = [name for name in names if name not in importlib.import_module("optree").__all__]
    assert sorted(listed) == sorted(names), "python docs/generate_compat.py writes the table anew"


@pytest.mark.parametrize("module", ["torchopt", *(f"torchopt.{name}" for name in SUBMODULES)])
def test_signatures_are_those_of_torchopt(module):
    original = importlib.import_module(module)
    copy = importlib.import_module(f"torchpure.compat.{module}")
    verdicts, different = rows().get(module, {}), []
    for name in public_names(original):
        wanted, got = getattr(original, name), getattr(copy, name)
        if verdicts.get(name) == "refused" or not callable(wanted) or inspect.ismodule(wanted):
            continue
        if "typing" in module or (inspect.isclass(wanted) and not wanted.__module__.startswith("torchopt")):
            continue
        if parameters(wanted) != parameters(got):
            different.append((name, parameters(wanted), parameters(got)))
    assert different == []


def parameters(function):
    try:
        signature = inspect.signature(function)
    except ValueError:
        return None
    return [
        (p.name, p.kind, p.default if p.default is p.empty else repr(p.default)) for p in signature.parameters.values()
    ]


def test_refused_names_say_what_replaces_them():
    refused = [(m, name) for m, names in rows().items() for name, verdict in names.items() if verdict == "refused"]
    assert len(refused) > 25
    for module, name in refused:
        function = getattr(importlib.import_module(f"torchpure.compat.{module}"), name)
        with pytest.raises(NotImplementedError, match="docs/scale.md"):
            function()
    assert ours.distributed.is_available() is False
