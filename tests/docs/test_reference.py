"""The reference has an entry for each public name; pages about what is inside, one for each package; and a chart."""

import inspect
import re
import types

import charts
import layers
import pytest
import reference
from blocks import DOCS

import torchpure as tp

ENTRIES = reference.entries()
NAMES = [name for names in ENTRIES.values() for name in names]
SPACES = (
    "",
    "checkpoints",
    "errors",
    "jit",
    "model",
    "operators",
    "optim",
    "parallel",
    "random",
    "runs",
    "testing",
    "train",
)
SPACES += ("train.callbacks", "transforms", "transforms.debug", "tree")
WITHOUT_EXAMPLE = {
    "torchpure.checkpoints.check_restorable", "torchpure.checkpoints.data_of", "torchpure.train.callbacks.as_callback",
    "torchpure.train.callbacks.describe_bad", "torchpure.train.callbacks.updated", "torchpure.runs.check_given_once",
    "torchpure.model.call_with_key", "torchpure.runs.open_executor",
    "torchpure.runs.is_sweep_folder", "torchpure.runs.read_axes", "torchpure.runs.unwatched_sweep", "torchpure.transforms.trace",
    "torchpure.tree.untransformed", "torchpure.tree.unwatched", "torchpure.random.check_key",
}  # fmt: skip  # what packages of this library hand to each other


@pytest.mark.parametrize("space", SPACES)
def test_each_public_name_has_one_entry(space):
    described = [id(reference.find(name)) for name in NAMES]
    assert len(described) == len({*described}), "a value has two entries"
    public = dict(reference.public(reference.space(space)))
    assert [name for name, value in public.items() if id(value) not in described] == []


def test_each_page_of_the_reference_is_written():
    written = {path.stem for path in (DOCS / "reference").glob("*.md")} - {"index"}
    assert written == {*ENTRIES} and all(ENTRIES.values())


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_links_to_the_line_of_its_source(key):
    text = reference.render(ENTRIES[key])
    links = re.findall(r"\[Source of `(\w+)`\]\(https://\S+?/blob/main/(\S+)#L(\d+)\)", text)
    assert links
    for name, file, line in links:
        lines = (reference.ROOT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1 :]
        start = next(text for text in lines if not text.startswith(("@", " ", ")")))  # decorators come first
        own = {"ravel_pytree": "ravel"}.get(name, name)  # JAX's name for it
        assert re.match(rf"(def|class) {own}\b", start), f"{name}: {file}:{line} is {start}"


def test_a_constant_has_no_line():
    assert reference.source_link(3) == "" and reference.first_line("torchpure.tree.LEAF") == ""


def test_each_public_function_has_an_example():
    found = {}
    for name in NAMES:
        value = reference.find(name)
        if isinstance(value, types.FunctionType):
            found[name] = re.search(r">>>|```|::\n", inspect.getdoc(value) or "") is not None
    assert {name for name, example in found.items() if not example} == WITHOUT_EXAMPLE


def test_the_index_lists_every_entry_with_its_first_line():
    text = reference.index(dict.fromkeys(ENTRIES, "A page"))
    assert all(f"#{name})" in text for name in NAMES)
    assert (inspect.getdoc(tp.vmap) or "").splitlines()[0] in text


def test_each_error_has_its_cause_and_its_way_out():
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE))
    assert {*tp.errors.__all__} == {*sections}
    for name, section in sections.items():
        assert re.search("^\\*\\*Way out|\\| way out \\|", section, re.MULTILINE) and "```python" in section, name
        assert "**Cause.**" in section or "**What it is.**" in section, name


def test_each_package_has_a_page_with_its_files_and_its_place():
    assert layers.packages() and "optim" in layers.packages()
    page, picture = layers.render("optim"), layers.draw("optim")
    assert "`algorithms`" in page and ">train<" in picture and ">tree<" in picture
    assert ">cli<" not in layers.draw("tree").partition("uses")[2]


def test_a_package_without_a_page_gets_one():
    assert layers.stub("optim").startswith("# Inside `optim`\n\nWhen to use this: ")


def test_the_chart_shows_the_ratios_of_the_table():
    text = charts.PAGE.read_text(encoding="utf-8")
    bars = charts.bars(text)
    assert {bar.figure for bar in bars} <= {*re.findall(r"^\| `(\w+)`", text, re.MULTILINE)} and len(bars) > 10
    picture = charts.draw(bars)
    assert picture.count("<rect") == len(bars) + 1
    assert charts.draw([charts.Bar("a", "b", 1e-9), charts.Bar("a", "b", 1e9)]).count("nan") == 0


def test_the_chart_stands_under_the_use():
    assert charts.with_chart("# Title\n\nUse\n\nText").splitlines()[4].startswith("![")


def test_rows_without_one_ratio_are_left_out():
    head = "| figure | work | ours | against | theirs | ratio | bar |\n"
    rows = (
        "| `a` | w | 1 | JAX | 2 | 0.5 | 1 |\n| | | 1 | torch | 4 | 0.2; 0.3 | – |\n| | | 1 | torch | 4 | 0.25 | – |\n"
    )
    assert charts.bars(head + rows) == [charts.Bar("a", "JAX", 0.5), charts.Bar("a", "torch", 0.25)]
