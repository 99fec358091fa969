"""The rules of the house that no linter knows: who imports whose files, what packages hand on, how long things are."""

import ast
import re
import runpy
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import torchpure

ROOT = Path(torchpure.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PACKAGES = sorted(path.parent for path in FILES if path.name == "__init__.py")
SHARED = {
    "torchpure._compile_lock",
    "torchpure._dtensors",
    "torchpure._types",
    "torchpure._collector",
    "torchpure._progress",
    "torchpure._missing_names",
    "torchpure._start",
}  # files of the top package, below every layer


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def _imported(path: Path):
    """Yield the module of each `from … import` of this package, with the names that it takes."""
    package = _name(path if path.name == "__init__.py" else path.parent / "__init__.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (base, node.module or ""))) if node.level else node.module or ""
            if module.split(".")[0] == "torchpure":
                yield module, [alias.name for alias in node.names], node.lineno


def test_no_module_imports_a_file_of_another_package():
    found = []
    for path in FILES:
        package = path.parent
        for module, _, line in _imported(path):
            target = ROOT.parent.joinpath(*module.split("."))
            if (
                target.name.startswith("_")
                and target.parent != package
                and module not in SHARED | {"torchpure._torch", "torchpure._cpp"}
            ):
                found.append(f"{path.relative_to(ROOT)}:{line}: {module}")
    assert not found, f"take the name from the package's __init__, which hands it on: {found}"


NEW = {"torchpure/transforms/batching/_microbatch.py"}  # what the recipes of docs/adding.md make


@pytest.mark.parametrize("page", sorted((ROOT.parent / "docs").glob("*.md")), ids=lambda path: path.name)
def test_a_page_names_files_that_exist(page):
    files = [
        path.as_posix() for top in (ROOT, ROOT.parent / "tests", ROOT.parent / "docs") for path in top.rglob("*.py")
    ]
    named = re.findall(r"`((?:[a-z_]+/)+_?[a-z_]+\.py)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if name not in NEW and not any(path.endswith(f"/{name}") for path in files)] == []


def test_the_picture_of_the_layers_is_current():
    space = runpy.run_path(str(ROOT.parent / "docs" / "draw_architecture.py"))
    picture = (ROOT.parent / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert picture == space["draw"](), "run `python docs/draw_architecture.py`"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: _name(path / "__init__.py"))
def test_an_init_has_a_caption_and_imports_alone(package):
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "say in one line what the package is for"
    lazily = (ast.If,) if package == ROOT else ()  # tp.testing, at its first use
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.With, *lazily)
    assert all(isinstance(node, allowed) for node in tree.body[1:])


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: _name(path / "__init__.py"))
def test_all_lists_what_a_package_hands_on(package):
    module = import_module(_name(package / "__init__.py"))
    handed = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not (isinstance(value, ModuleType) and name not in module.__all__)
    }
    assert sorted(module.__all__) == sorted({*module.__all__}), "a name stands twice in __all__"
    assert handed - {*module.__all__} == set(), "add these to __all__"
    assert all(hasattr(module, name) for name in module.__all__)


def test_a_folder_holds_at_most_eighteen_files():
    """More files are several subjects. `optim/algorithms` is the exception: one file a paper."""
    counts = {_name(package / "__init__.py"): len(list(package.glob("_*.py"))) - 1 for package in PACKAGES}
    assert [name for name, count in counts.items() if count > 18] == ["torchpure.optim.algorithms"]
