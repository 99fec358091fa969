"""Writes the tables of docs/optimizers.md: what stands in the code and in the tests' tables of cases is written once.

The text around the tables is written by hand, in the page itself. `make docs-tables` runs this.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cases import OPTIMIZERS
from cases_transforms import COMBINATORS, TRANSFORMS

from torchpure import optim
from torchpure.testing import Case

PAGE = ROOT / "docs" / "optimizers.md"
REMEDY = "docs/optimizers.md is not what the code says: run `make docs-tables`"
CASES: dict[str, Case] = OPTIMIZERS | TRANSFORMS | COMBINATORS

# oracles that no case names, since other tests hold the comparison
COMPARED = {
    "add_noise": "its variance",
    "amsgrad": "torch.optim.Adam",
    "asgd": "a recurrence in float64, torch.optim.ASGD (its η is float32)",
    "donate": "the same step, not donated",
    "galore": "optax (its projection is in float32)",
    "kron": "a recurrence in NumPy",
    "lbfgs": "optax, torch.optim.LBFGS, scipy",
    "lift": "eight classes of torch.optim",
    "lookahead": "the paper's recurrence",
    "muon": "optax, torch.optim.Muon",
    "nadam": "a recurrence in float64, torch.optim.NAdam (its product is float32)",
    "noisy_sgd": "its parts",
    "polyak_sgd": "a recurrence in float64",
    "scale_by_backtracking_linesearch": "optax",
    "scale_by_factored_rms": "optax, in `adafactor`",
    "scale_by_galore": "optax, in `galore`",
    "scale_by_kron": "a recurrence in NumPy, in `kron`",
    "scale_by_lbfgs": "optax, in `lbfgs`",
    "scale_by_more_thuente_linesearch": "scipy, in `lbfgs`",
    "scale_by_muon": "optax, in `muon`",
    "scale_by_nadam": "a recurrence in float64, in `nadam`",
    "scale_by_shape": "optax, in `muon`",
    "scale_by_sm3": "optax, in `sm3`",
    "scale_by_soap": "a recurrence in NumPy, in `soap`",
    "scale_by_sophia": "optax, in `sophia`",
    "scale_by_strong_wolfe_linesearch": "torch.optim.LBFGS, in `lbfgs`",
    "scale_by_zoom_linesearch": "optax",
    "sm3": "optax, on matrices",
    "soap": "a recurrence in NumPy",
    "sophia": "optax, with the same diagonal",
}


def factories() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every public function of `torchpure.optim` that returns an optimizer, by name."""
    for name, value in sorted(vars(optim).items()):
        if inspect.isfunction(value) and "Optimizer[" in str(inspect.signature(value).return_annotation):
            yield name, value


def row(name: str, factory: Callable[..., Any]) -> str:
    """Return the row of one factory: its signature, its line, its paper, its oracles."""
    line = (inspect.getdoc(factory) or "").partition("\n")[0]
    cells = (f"`{name}{signature(factory)}`", line, source(factory) or "–", oracles(name) or "–")
    return f"| {' | '.join(cell.replace('|', '∣') for cell in cells)} |"


def signature(factory: Callable[..., Any]) -> str:
    """Return the arguments and their defaults, without types."""
    found = inspect.signature(factory)
    bare = [one.replace(annotation=one.empty) for one in found.parameters.values()]
    text = str(found.replace(parameters=bare, return_annotation=found.empty))
    return re.sub(r"<function (\w+) at \w+>", r"\1", text)


def source(factory: Callable[..., Any]) -> str:
    """Return the papers that the first line of the factory's docstring names, or else that of its module."""
    for doc in (inspect.getdoc(factory), inspect.getdoc(inspect.getmodule(factory))):
        cited = re.findall(r"\(([A-Z][^()]*\b(?:19|20)\d\d\b[^()]*)\)", (doc or "").partition("\n")[0])
        if cited:
            return re.sub(r"arXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", "; ".join(cited))
    return ""


def oracles(name: str) -> str:
    """Return what a factory is compared with: the oracles of its cases, and those of other tests."""
    cases = [case for key, case in CASES.items() if key.split(",")[0] == name]
    found = [COMPARED[name]] if name in COMPARED else []
    if any(case.optax for case in cases) and "optax" not in " ".join(found):
        found.insert(0, "optax")
    classes = sorted({f"torch.optim.{case.torch[0].__name__}" for case in cases if case.torch})
    return ", ".join(found + [one for one in classes if one not in " ".join(found)])


def page(text: str) -> str:
    """Return the page with its tables written anew, between their marks."""
    named = dict(factories())
    first = [name for name in named if name in OPTIMIZERS or name == "lift"]
    for kind, names in {"optimizers": first, "transformations": [name for name in named if name not in first]}.items():
        rows = ["| signature | what it does | source | compared with |", "|---|---|---|---|"]
        rows += [row(name, named[name]) for name in names]
        begin, end = f"<!-- {kind}: `make docs-tables` writes these rows -->\n", f"<!-- end of {kind} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"docs/optimizers.md: the marks of the table of {kind} are missing")
        text = f"{before}{begin}{chr(10).join(rows)}\n{end}{after}"
    return text


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
