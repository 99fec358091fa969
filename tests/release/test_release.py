"""What a release consists of: its versions, its pages, its lowest requirements, and what runs where."""

import datetime
import json
import re
import tomllib
from pathlib import Path

import lowest
import pytest
import yaml

import torchpure as tp

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_workflow_runs_what_ci_runs():
    """The workflow has no list of checks of its own: after the set-up it runs the one file."""
    (job,) = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    steps = [line for line in read(".ci/run").splitlines() if line.startswith("make ")]
    assert steps == ["make check", "make docs", "make test"]


def test_the_hook_before_a_commit_runs_the_checks():
    (repo,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    (hook,) = repo["hooks"]
    assert (repo["repo"], hook["entry"]) == ("local", "make check")
    assert all(re.search(hook["files"], path) for path in ("torchpure/jit/_jit.py", "pyproject.toml", "Makefile"))


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_issue_forms_have_what_github_asks_for(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert all({*link} == {"name", "url", "about"} for link in form["contact_links"])
        return
    assert form["name"] and form["description"] and form["labels"]
    names = [part["id"] for part in form["body"]]
    assert len(names) == len({*names}) and all(part["attributes"]["label"] for part in form["body"])


def test_the_container_prepares_what_the_tests_need():
    container = json.loads(read(".devcontainer/devcontainer.json"))
    assert "make .venv/.dev" in container["postCreateCommand"]
    python = re.search(r"python:(3\.\d+)", container["image"])[1]
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]


def test_the_citation_names_this_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert (citation["version"], citation["license"], citation["type"]) == (
        tp.__version__,
        PROJECT["license"],
        "software",
    )


@pytest.mark.parametrize("name", ["LICENSE", "SECURITY.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md"])
def test_the_repository_has(name):
    assert len(read(name)) > 40


def test_the_changelog_keeps_its_form():
    text = read("docs/changelog.md")
    versions = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", text, re.MULTILINE)
    assert versions[0] == ("Unreleased", "") and len(versions) == len(re.findall(r"^## ", text, re.MULTILINE))
    for version, date in versions[1:]:
        assert re.fullmatch(r"\d+\.\d+\.\d+", version) and datetime.date.fromisoformat(date)
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert kinds and {*kinds} <= KINDS
    assert all(f"\n[{version}]: https://" in text for version, _ in versions)


def test_each_requirement_has_a_lowest_version():
    assert {*lowest.lowest(lowest.dependencies())} >= {"torch", "numpy", "pyarrow", "typer"}
    with pytest.raises(ValueError, match="'rich' has no lowest version"):
        lowest.lowest(["rich"])


def test_the_supported_versions_of_torch_are_those_of_the_pages():
    bound = next(requirement for requirement in PROJECT["dependencies"] if requirement.startswith("torch"))
    low, high = (int(part) for part in re.fullmatch(r"torch>=2\.(\d+),<2\.(\d+)", bound).groups())
    named = ", ".join(f"2.{minor}" for minor in range(low, high - 1)) + f" and 2.{high - 1}"
    assert named in read("docs/dependencies.md")
