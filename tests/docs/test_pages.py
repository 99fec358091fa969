"""Each page runs as it is printed, says when to use it, and links to what exists."""

import ast
import re

import pytest
import torch
from blocks import DOCS, blocks, check_page
from hooks import extended, paths
from setups import SETUPS

TORCH = ".".join(torch.__version__.split(".")[:2])
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
COMPILES = {"architecture.md", "scale.md", "jit.md", "inside/jit.md", "tutorial/08-jit.md", "tutorial/09-many.md"}
COMPILES |= {"tutorial/10-differentiated.md", "reference/programs.md", "operators-guide.md", "errors.md"}
ELSEWHERE = {"adding.md", "operators-guide.md"}  # tests/test_docs.py runs these
ELSEWHERE |= {page for page in PAGES if page.startswith("notebooks/")}  # and test_notebooks.py these
LONG = {"training.md", "jit.md", "architecture.md", "tutorial/09-many.md", "tutorial/10-differentiated.md"}
RUN = [page for page in PAGES if page not in ELSEWHERE and blocks((DOCS / page).read_text(encoding="utf-8"))]
RECORDS = {"changelog.md", "decisions.md", "dependencies.md", "adding.md", "architecture.md", "architecture-jit.md"}


def marks(page):
    """The marks of the test of a page."""
    of_one_torch = pytest.mark.skipif(TORCH != "2.13", reason="the page says what is wrong in PyTorch 2.13")
    return [
        *[pytest.mark.compile] * (page in COMPILES),
        *[pytest.mark.proof] * (page in LONG),
        *[of_one_torch] * (page == "torch-wrong.md"),
    ]


@pytest.mark.parametrize("page", [pytest.param(page, marks=marks(page)) for page in RUN])
def test_a_page_runs_as_it_is_printed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "page"}
    exec(SETUPS.get(page, ""), space)
    assert check_page(DOCS / page, space) > 0


def test_code_that_no_test_runs_is_python():
    """Rows of tables, in the recipes, stand in braces or in brackets."""
    for block in blocks((DOCS / "adding.md").read_text(encoding="utf-8")):
        row = re.match(r'\s+"|[A-Z]+ = \{\n', block.code)
        ast.parse(f"{{{block.code.partition('{' + chr(10))[2] or block.code}}}" if row else block.code)


def test_a_difference_between_page_and_program_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match=r"page.md, line 3"):
        check_page(page, {})


def test_a_message_may_name_another_line_of_the_user(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '```python\nprint("`f` (page.md:2), line 3 of page.md")\n```\n\n```text\n`f` (train.py:7), line 8 of train.py\n```\n'
    )
    assert check_page(page, {}) == 1


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RECORDS])
def test_a_page_begins_with_its_use_and_an_example(page):
    text = extended(page, (DOCS / page).read_text(encoding="utf-8"))
    title, use, *_ = [part for part in text.split("\n\n") if not part.startswith("<!--")]
    assert title.startswith("# ") and use.startswith("When to use this: ")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_pages_and_headings(page):
    """MkDocs checks the same in `make docs`; GitHub shows the pages as they are."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code((DOCS / page).read_text(encoding="utf-8"))):
        if re.match(r"https://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (DOCS / page).parent / path if path else DOCS / page
        assert file.exists() or made(file), f"{page}: there is no {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page}: there is no heading {target}"


def made(file):
    """Whether the site makes this file: a picture."""
    return file.name == "benchmarks.svg" or (file.parent.name == "inside" and file.suffix == ".svg")


def without_code(text):
    """A page without its blocks and its code in lines."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(text):
    """The anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_navigation_names_pages_that_exist():
    text = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"\b([\w/-]+\.md)$", text.partition("\nnav:\n")[2], re.MULTILINE)
    assert len(named) == len({*named}) > 25
    assert [path for path in named if not (DOCS / path).exists()] == []


def test_paths_of_a_navigation():
    assert paths([{"A": ["a.md", {"B": "b.md"}]}, "c.md"]) == ["a.md", "b.md", "c.md"]


def test_the_readme_is_short():
    assert len((DOCS.parent / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
