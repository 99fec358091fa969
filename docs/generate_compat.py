"""Write the table of torchopt's names in compat-torchopt.md: `python docs/generate_compat.py`. It needs torchopt."""

import importlib
import pkgutil
from pathlib import Path

import torchopt

PAGE = Path(__file__).parent / "compat-torchopt.md"
MARKS = "<!-- names -->", "<!-- end of names -->"
BETTER = {
    "adam": "bias correction in float64; finite derivatives at zero gradients",
    "adamw": "masks work; bias correction and derivatives as for adam",
    "scale_by_adam": "bias correction in float64; finite derivatives at zero gradients",
    "scale_by_accelerated_adam": "exact derivatives",
    "AdamOp": "exact derivatives",
    "is_available": "the operation is always there",
    "accelerated_op_available": "the operation is always there",
    "rmsprop": "centered: no NaN for constant gradients",
    "scale_by_stddev": "no NaN for constant gradients",
    "adamax": "a leaf without gradient stays",
    "radam": "a leaf without gradient stays",
    "scale_by_adamax": "a leaf without gradient stays",
    "scale_by_radam": "a leaf without gradient stays",
    "sgd": "dampening belongs to the state: a second run is like the first",
    "trace": "dampening belongs to the state: a second run is like the first",
    "FuncOptimizer": "memory stays constant",
    "custom_root": "any argnums; a second derivative is an error",
    "zero_order": "the forward estimator is right",
    "solve_inv": "the whole matrix, not its diagonal blocks",
    "stop_gradient": "takes a FuncOptimizer too",
    "masked": "masks work on flat sequences",
    "add_decayed_weights": "masks work on flat sequences",
    "exponential_decay": "counts may be batched",
}
REMOTE = ("torchopt.distributed.api", "torchopt.distributed.world", "torchopt.distributed.autograd")


def modules() -> list[str]:
    """Return torchopt and its public modules."""
    found = [name for _, name, _ in pkgutil.walk_packages(torchopt.__path__, "torchopt.")]
    return ["torchopt", *sorted(n for n in found if "._" not in n and ".lts" not in n)]


def names_of(module: str) -> list[str]:
    """Return the public names of a module, without those that are optree's."""
    space = importlib.import_module(module)
    listed = getattr(space, "__all__", None)
    if listed is None:
        listed = [
            name
            for name, value in vars(space).items()
            if not name.startswith("_") and getattr(value, "__module__", "").startswith("torchopt")
        ]
    if module == "torchopt.pytree":
        listed = set(listed) - set(importlib.import_module("optree").__all__)
    return sorted(listed)


def verdict(module: str, name: str) -> str:
    """Return same, better or refused, with the reason."""
    remote = module in REMOTE or module == "torchopt.distributed"
    if (remote and name != "is_available") or name in {"tree_as_rref", "tree_to_here"}:
        return "refused: no remote procedure calls; see scale.md"
    if name in BETTER and not remote:
        return f"better: {BETTER[name]}"
    return "same"


def table() -> str:
    """Return the rows: a module, its names, the verdict."""
    lines = ["| module | names | verdict |", "|---|---|---|"]
    for module in modules():
        groups: dict[str, list[str]] = {}
        for name in names_of(module):
            groups.setdefault(verdict(module, name), []).append(f"`{name}`")
        lines += [f"| `{module}` | {', '.join(names)} | {kind} |" for kind, names in groups.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    PAGE.write_text(f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{after}", encoding="utf-8")
