"""Pages that are generated are what the code says."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import torchpure as tp
from torchpure import testing
from torchpure.jit.native.codegen import generate_cpp, lower_program
from torchpure.jit.native.ir import describe_items
from torchpure.jit.native.optimize import plan_memory
from torchpure.transforms.tracing import program_text, trace

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_optimizers_are_what_the_code_says(generate):
    text = generate.PAGE.read_text(encoding="utf-8")
    assert generate.page(text) == text, generate.REMEDY


def test_a_stale_table_is_written_anew(generate):
    text = generate.PAGE.read_text(encoding="utf-8")
    assert generate.page(text.replace("| `adam(", "| `eve(")) == text
    with pytest.raises(ValueError, match="the marks of the table of optimizers are missing"):
        generate.page(text.replace("<!-- end of optimizers -->", ""))


def test_what_is_said_of_oracles_is_of_factories_that_exist(generate):
    unknown = set(generate.COMPARED) - {name for name, _ in generate.factories()}
    assert not unknown, f"COMPARED in docs/generate.py names no factory: {sorted(unknown)}"


IMPORTS = """
from functools import wraps
from typing import Any
import torch
from torch import Tensor
import torchpure as tp
from torchpure import tree
from torchpure.errors import TransformError
from torchpure.testing import TransformCase
from collections.abc import Callable

def check_callable(who, fn):
    if not callable(fn):
        raise TransformError(f"{who}: wanted a function, got {fn}")

X, T = torch.tensor([0.3, -0.7]).double(), torch.tensor(0.4).double()
"""


def test_the_recipe_of_a_transform_works_as_it_is_printed(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "adding.md").read_text(encoding="utf-8"), re.DOTALL)
    (definition,), (case,) = (
        [block for block in blocks if part in block] for part in ("def microbatch", '"microbatch":')
    )
    file = tmp_path / "recipe.py"
    file.write_text(f"{IMPORTS}\n{definition}\ntp.microbatch = microbatch\nCASES = {{\n{case}}}\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("recipe", file)
    recipe = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(recipe)
        for law in testing.TRANSFORM_LAWS.values():
            law(recipe.CASES["microbatch"])
    finally:
        del tp.microbatch


def test_the_stages_of_a_native_program_are_what_the_page_shows():
    page = (DOCS / "architecture-jit.md").read_text(encoding="utf-8")
    traced, lowered, fused, cpp = (block.strip() for block in re.findall(r"```(?:cpp)?\n(.*?)```", page, re.DOTALL))
    a = torch.ones(3, 5)
    module = trace(lambda a: (torch.tanh(a * 2).sum(1),), (a,))
    assert traced.splitlines() == [line.strip() for line in program_text(module).splitlines()[1:-1]]
    scope = lower_program(module, [a]).scope
    assert describe_items(scope.items) == lowered
    plan_memory(scope)
    assert describe_items(scope.items) == fused
    source = [line.strip() for line in generate_cpp(module, [a]).source.splitlines()]
    assert "\n".join(line.strip() for line in cpp.splitlines()) in "\n".join(source)


def test_the_section_on_checkpoints_runs_as_it_is_printed(tmp_path, monkeypatch, capsys):
    section = (
        (DOCS / "training.md").read_text(encoding="utf-8").partition("\n## Save and restore\n")[2].partition("\n## ")[0]
    )
    monkeypatch.chdir(tmp_path)
    space = {"tp": tp, "torch": torch}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, space)
    assert capsys.readouterr().out.splitlines()[-1] == "[100, 200] 200"
    assert {path.name for path in tmp_path.iterdir()} == {"model", "checkpoints"}
    assert space["newest"]["step"] == 200 and space["half"]["params"]["weight"].dtype == torch.bfloat16
    assert torch.equal(space["warm"]["params"]["weight"], space["net"].params["weight"])


def test_the_section_on_resuming_runs_as_it_is_printed(tmp_path):
    text = (
        (DOCS / "training.md").read_text(encoding="utf-8").partition("\n## Stop and resume\n")[2].partition("\n## ")[0]
    )
    x = torch.linspace(0, 1, 22)[:, None]
    space = {"tp": tp, "net": torch.nn.Linear(1, 1), "x": x, "y": x.sin(), "folder": tmp_path}
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(block, space)
    whole = tp.fit(space["net"], (x, x.sin()), every=10, **space["options"])
    assert torch.equal(whole.history, space["result"].history)
    assert torch.equal(whole.params["weight"], space["result"].params["weight"])


@pytest.mark.compile
def test_the_guide_of_operators_runs_as_it_is_printed():
    text = (DOCS / "operators-guide.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    space = {}
    for block in blocks:
        exec(block, space)
    assert len(blocks) == 12 and space["value"].shape == ()


def test_the_guide_of_meta_learning_runs_as_it_is_printed():
    text = (DOCS / "meta-learning.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    space = {}
    for block in blocks:
        exec(block, space)
    assert len(blocks) == 5 and space["mean"].shape == (3,)


def test_the_guide_of_meta_learning_names_every_estimator():
    text = (DOCS / "meta-learning.md").read_text(encoding="utf-8")
    functions = [name for name in tp.estimators.__all__ if name.islower()]
    assert [name for name in functions if f"`{name}`" not in text] == []
