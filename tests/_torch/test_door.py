"""`torchpure._torch` is the only place of the library that names torch's private API."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchpure as tp
from torchpure import _torch

LIBRARY = Path(tp.__file__).parent
DOOR = LIBRARY / "_torch"
PRIVATE = re.compile(r"torch(\.\w+)*\.(_(?!_)\w+|fx\.experimental)(\.\w+)*")
OPERATORS = "torch.ops."  # an operator's name is what a program says, and its underscore part of it
STATE = {"torchpure._torch.forward_ad._current_level"}  # torch assigns to it: no object could be handed on
LOOKS = {"getattr", "hasattr", "setattr", "delattr"}
PYTREE_FILES = [LIBRARY / "tree/_backend.py", LIBRARY / "tree/_registry.py"]
REMEDY = "hand it on in torchpure/_torch, with a contract in tests/_torch, and take it from there"


class _Names(ast.NodeVisitor):
    """Collects private names of torch: imported, read off what was imported, or written as text."""

    def __init__(self, pytree: bool = False) -> None:
        self.found: list[tuple[int, str]] = []
        self._meaning: dict[str, str] = {}  # a name in this file -> what it is, from torch or from the door
        self._pytree = pytree

    def _look(self, node: ast.AST, path: str) -> None:
        if path.startswith(OPERATORS) or path in STATE:
            return
        behind = re.fullmatch(r"torchpure\._torch\.(.*\.)?_(?!_)\w+(\..*)?", path)
        if behind or PRIVATE.fullmatch(path) or (path == "torchpure._torch.pytree" and not self._pytree):
            self.found.append((node.lineno, path))

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            self._look(node, name.name)
            if name.name.partition(".")[0] == "torch":
                self._meaning[name.asname or "torch"] = name.name if name.asname else "torch"

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for name in node.names if not node.level else ():
            path = f"{node.module}.{name.name}"
            if path.startswith(("torch.", "torchpure._torch")):
                self._look(node, path)
                self._meaning[name.asname or name.name] = path

    def visit_Assign(self, node: ast.Assign) -> None:
        self._alias(node.targets, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._alias([node.target], node.value)
        self.generic_visit(node)

    def _alias(self, targets: list[ast.expr], value: ast.expr | None) -> None:
        path = self._path(value)
        for target in targets:
            if path and isinstance(target, ast.Name):
                self._meaning[target.id] = path

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = self._path(node)
        if path is None:
            self.generic_visit(node)
        else:
            self._look(node, path)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in LOOKS and isinstance(node.args[1], ast.Constant):
            path = self._path(node.args[0])
            if path:
                self._look(node, f"{path}.{node.args[1].value}")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and PRIVATE.fullmatch(node.value):
            self._look(node, node.value)

    def _path(self, node: ast.expr | None) -> str | None:
        if isinstance(node, ast.Name):
            return self._meaning.get(node.id)
        base = self._path(node.value) if isinstance(node, ast.Attribute) else None
        return base and f"{base}.{node.attr}"


def private_names(source: str, pytree: bool = False) -> list[tuple[int, str]]:
    """List the private names of torch in a file, with their lines."""
    names = _Names(pytree)
    names.visit(ast.parse(source))
    return names.found


def files() -> list[Path]:
    return [path for path in sorted(LIBRARY.rglob("*.py")) if DOOR not in path.parents]


def test_no_other_file_names_torchs_private_api():
    found = [
        f"{path.relative_to(LIBRARY)}:{line}: {name}"
        for path in files()
        for line, name in private_names(path.read_text(encoding="utf-8"), path in PYTREE_FILES)
    ]
    assert found == [], f"{REMEDY}: {found}"


@pytest.mark.parametrize(
    "source",
    [
        "import torch._dynamo",
        "import torch\ntorch._foreach_add",
        "import torch\ntorch._C._len_torch_dispatch_stack()",
        "import torch\ntorch.fx.experimental.proxy_tensor",
        "from torch.fx import experimental",
        "from torch.fx.experimental.proxy_tensor import make_fx",
        "from torch.nn.modules.batchnorm import _BatchNorm",
        "from torch import _C as c",
        "def late():\n    from torch._inductor import config",
        "import torch\ngetattr(torch, '_VF')",
        "import torch\ngetattr(torch._C, 'x')",
        "from torch import Tensor\nTensor._make_subclass",
        "from torch import nn as layers\nlayers.init._no_grad_fill_",
        "import torch\nf = torch.autograd.functional\nf._grad_preprocess",
        "import importlib\nimportlib.import_module('torch._inductor')",
        "from torch.autograd import forward_ad\nforward_ad._current_level",
        "from torchpure._torch import forward_ad\nforward_ad._set_fwd_grad_enabled",
        "from torchpure._torch import FakeTensor\nFakeTensor._x",
        "from torchpure._torch._modes import push_mode",
        "from torchpure import _torch\n_torch._modes.push_mode",
        "from torchpure._torch import pytree",
    ],
)
def test_what_the_test_above_sees(source):
    assert private_names(source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.__version__",
        "import torch\naten = torch.ops.aten\naten._softmax",
        "from torchpure._torch import forward_ad\nforward_ad._current_level",
        "from torchpure import _torch\n_torch.forward_ad",
        "def f(tensor):\n    return tensor._version",
        "from torch import Tensor\nTensor.__getitem__",
    ],
)
def test_what_it_leaves_alone(source):
    assert not private_names(source)


def entries() -> dict[str, object]:
    """What the door hands on, by name; those of its modules that users import by their names as `module.name`."""
    found = {name: value for name, value in vars(_torch).items() if not name.startswith("_")}
    for path in DOOR.glob("[!_]*.py"):
        found.pop(path.stem, None)
        module = importlib.import_module(f"torchpure._torch.{path.stem}")
        found |= {f"{path.stem}.{name}": value for name, value in vars(module).items() if not name.startswith("_")}
    return found


def test_the_door_holds_imports_and_aliases_alone():
    """Wrappers would cost time at each call: what is handed on is torch's object."""
    kinds = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Try)
    for path in DOOR.glob("*.py"):
        caption, *rest = ast.parse(path.read_text(encoding="utf-8")).body
        assert ast.literal_eval(caption.value).strip()
        assert all(isinstance(node, kinds) for node in rest), path


def test_the_package_hands_on_all_that_its_files_hold():
    for path in DOOR.glob("_[a-z]*.py"):
        module = importlib.import_module(f"torchpure._torch.{path.stem}")
        for name in vars(module).keys() - {"Any", "torch"}:
            assert name.startswith("_") or getattr(_torch, name) is getattr(module, name), f"{path.stem}.{name}"


def test_every_entry_is_taken():
    """One that nobody takes any more goes, with its contract."""
    taken = set(re.findall(r"\w+", "\n".join(path.read_text(encoding="utf-8") for path in files())))
    assert [name for name in entries() if name.rpartition(".")[2] not in taken] == []


def test_the_slow_part_waits_until_it_is_wanted():
    slow = ("torch._inductor", "torch._dynamo", "torch._functorch.config", "torch.fx.experimental.symbolic_shapes")
    code = f"import sys, torchpure; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_what_the_door_hands_on_is_torchs_own():
    assert _torch.functorch.add_batch_dim is torch._C._functorch._add_batch_dim
    assert _torch.foreach_add is torch._foreach_add
    assert _torch.pytree.SUPPORTED_NODES is torch.utils._pytree.SUPPORTED_NODES
