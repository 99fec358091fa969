"""The notebooks: each runs in a short form, and its page shows its cells."""

import ast
import importlib.util
import os
import re
import subprocess
import sys

import pytest
from blocks import DOCS, blocks

FOLDER = DOCS / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
SHORT = {  # what the cell of parameters says in the tests, and what must hold at the end
    "burgers": ("adam_steps, lbfgs_steps, points = 100, 20, 200", "found.shape == wanted.shape and error < 1"),
    "gpt": ("steps, width, length = 20, 16, 16", "losses[-1] < losses[0] and same"),
    "influence": ("rows, wrong, steps = 100, 10, 300", "found > 2 and gradients.shape == (100, len(flat))"),
    "laplace": ("steps = 300", "in_gap > 2 * at_data"),
    "many_trainings": ("members, steps = 16, 50", "losses.shape == (16, 50) and final[8:].min() < final[0]"),
    "maml": ("steps, tasks = 50, 4", "losses.shape == (50,) and errors[10] < errors[0]"),
    "neural_ode": ("steps, length = 100, 21", "fitted.history[-1] < fitted.history[0] and found.shape == (42, 2)"),
    "sharded_training": ("steps, rows = 20, 64", "difference < 1e-12 and len(longer.history) == 40"),
}


def load():
    spec = importlib.util.spec_from_file_location("run_notebooks", DOCS / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NOTES = load()


@pytest.fixture(autouse=True)
def _no_window(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")


def test_each_notebook_has_a_short_form():
    assert {path.stem for path in NOTEBOOKS} == {*SHORT}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_use_and_has_one_cell_of_parameters(path):
    first, *rest = NOTES.cells(path)
    assert first.markdown and re.match(r"# .+\n\nWhen to use this: ", first.text)
    assert [cell.parameters for cell in rest].count(True) == 1
    for cell in rest:
        assert cell.markdown or ast.parse(cell.text).body


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cells_run(path):
    """Up to the parameters: what is imported exists."""
    code = [cell for cell in NOTES.cells(path) if not cell.markdown]
    space = {}
    for cell in code[: [cell.parameters for cell in code].index(True) + 1]:
        exec(cell.text, space)
    short = {}
    exec(SHORT[path.stem][0], short)
    assert {*short} <= {*space}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_shows_the_cells_of_its_notebook(path):
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    written = NOTES.cells(path)
    code = [cell.text.strip() for cell in written if not cell.markdown]
    assert [block.code.strip() for block in blocks(text)] == code, "run `make notebooks`"
    assert all(cell.text in text for cell in written if cell.markdown)
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", text)
    assert [alt for alt, _ in pictures] == [cell.alt for cell in written if cell.alt] and pictures
    assert all((FOLDER / file).stat().st_size < 100_000 for _, file in pictures)


def test_a_page_is_made_of_cells_and_their_outputs():
    written = [NOTES.Cell("# A title", markdown=True), NOTES.Cell("print(1)", alt="A curve")]
    outputs = [
        [],
        [
            {"output_type": "stream", "name": "stdout", "text": "1\n"},
            {"output_type": "display_data", "data": {"image/png": "AAAA"}},
        ],
    ]
    text, pictures = NOTES.page("example", written, outputs)
    assert text.startswith("# A title\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n![A curve](example-1.png)\n\n")
    assert pictures == {"example-1.png": bytes(3)}
    with pytest.raises(ValueError, match="example: a cell with a picture needs alt"):
        NOTES.page("example", [written[1]._replace(alt="")], outputs[1:])
    warning = [{"output_type": "stream", "name": "stderr", "text": "UserWarning: so"}]
    with pytest.raises(ValueError, match="wrote on standard error: UserWarning: so"):
        NOTES.page("example", written, [[], warning])


def test_text_before_the_first_cell_is_refused(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n# %%\ny = 2\n")
    with pytest.raises(ValueError, match=r"a.py: there is text before the first cell"):
        NOTES.cells(tmp_path / "a.py")


@pytest.mark.proof
@pytest.mark.compile
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_short_form(path, tmp_path):
    values, holds = SHORT[path.stem]
    code = [values if cell.parameters else cell.text for cell in NOTES.cells(path) if not cell.markdown]
    (tmp_path / "short.py").write_text("\n".join([*code, f"assert {holds}"]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "short.py"], cwd=tmp_path, env=os.environ | {"MPLBACKEND": "Agg"},
        capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
