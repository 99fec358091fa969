"""The entries of the API reference. The first part of each page is written by hand, in docs/reference/."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
SOURCE = "https://github.com/torchpure/torchpure/blob/main"


class Page(NamedTuple):
    """Where the names of a page come from. A name stands on the first page that takes it."""

    names: str = ""  # of `torchpure` itself
    spaces: tuple[str, ...] = ()  # modules of torchpure, all names of which stand here
    modules: tuple[str, ...] = ()  # only names of these spaces whose code is under these modules
    pattern: str = ""  # only names of these spaces that begin with this regular expression


PAGES = {
    "modules": Page("Functional functional make_functional_fwd ensemble stack unstack partition merge"),
    "derivatives": Page(
        "grad value_and_grad jvp vjp linearize linear_transpose jacfwd jacrev hessian stop_gradient where"
    ),
    "batching": Page("vmap axis_index axis_size psum pmean pmax pmin all_gather psum_scatter ppermute all_to_all"),
    "devices": Page("make_mesh PartitionSpec shard_map device_put pmap", ("parallel",)),
    "loops": Page("scan map fori_loop while_loop cond switch associative_scan"),
    "programs": Page(
        "jit eval_shape make_graph named_scope Graph ShapeDtype custom_jvp custom_vjp custom_vmap remat remat_name "
        "check pure",
        ("jit", "transforms", "transforms.debug"),
    ),
    "operators": Page(spaces=("operators",)),
    "training": Page("fit sweep", ("train", "train.callbacks")),
    "optimizers": Page(
        spaces=("optim",),
        modules=("torchpure.optim.algorithms", "torchpure.optim.line_search", "torchpure.optim.interop"),
        pattern=r"(?!scale_by_|\w+State$)",
    ),
    "optimizer-parts": Page(
        spaces=("optim",), modules=("torchpure.optim.algorithms", "torchpure.optim.line_search"), pattern="scale_by_"
    ),
    "transformations": Page(spaces=("optim",), modules=("torchpure.optim.transformations",), pattern=r"(?!\w+State$)"),
    "combinators": Page(spaces=("optim",), pattern=r"(?!\w+State$)"),
    "optimizer-states": Page(spaces=("optim",)),
    "trees": Page("ravel_pytree", ("tree",)),
    "random": Page(spaces=("random",)),
    "checkpoints": Page("save restore", ("checkpoints",)),
    "runs": Page("load_run report", ("runs",)),
    "errors": Page("show_versions", ("errors",)),
    "testing": Page(spaces=("testing", "model")),
}


def space(name: str) -> ModuleType:
    """Import a module of torchpure."""
    return importlib.import_module(f"torchpure.{name}" if name else "torchpure")


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the public names of a module that are no modules themselves."""
    for name in module.__all__:
        value = getattr(module, name)
        if not name.startswith("__") and not isinstance(value, ModuleType):
            yield name, value


def belongs(page: Page, name: str, value: Any) -> bool:
    """Return whether a page takes a name of one of its spaces."""
    home = getattr(value, "__module__", "") or ""
    return (not page.modules or home.startswith(page.modules)) and re.match(page.pattern, name) is not None


def entries() -> dict[str, list[str]]:
    """Return the dotted names of each page. A name of torchpure that no page takes stands on "programs"."""
    pages = {key: [f"torchpure.{name}" for name in page.names.split()] for key, page in PAGES.items()}
    seen = {id(getattr(space(""), name)) for page in PAGES.values() for name in page.names.split()}
    for key, page in PAGES.items():
        for part in page.spaces:
            for name, value in public(space(part)):
                if id(value) not in seen and belongs(page, name, value):
                    seen.add(id(value))
                    pages[key].append(f"torchpure.{part}.{name}")
    pages["programs"] += [f"torchpure.{name}" for name, value in public(space("")) if id(value) not in seen]
    return pages


def find(dotted: str) -> Any:
    """Return the value of a dotted name."""
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def first_line(dotted: str) -> str:
    """Return the first line of the docstring of a function or class; a constant has none of its own."""
    value = find(dotted)
    described = inspect.isroutine(value) or inspect.isclass(value)
    return (inspect.getdoc(value) or "").partition("\n")[0] if described else ""


def source_link(value: Any) -> str:
    """Return the address of the line where a function or class begins, or nothing for a constant."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return ""
    value = inspect.unwrap(value)
    file = Path(inspect.getsourcefile(value) or "").relative_to(ROOT)
    return f"{SOURCE}/{file}#L{inspect.getsourcelines(value)[1]}"


def render(names: list[str]) -> str:
    """Return the entries of a page."""
    lines = []
    for dotted in names:
        lines += [f"::: {dotted}", ""]
        if link := source_link(find(dotted)):
            lines += [f"[Source of `{dotted.rpartition('.')[2]}`]({link})", ""]
    return "\n".join(lines)


def index(titles: dict[str, str]) -> str:
    """Return the tables of all public names, each with its first line."""
    lines = []
    for key, names in entries().items():
        lines += [f"## [{titles[key]}]({key}.md)", "", "| name | what it does |", "|---|---|"]
        for dotted in names:
            line = first_line(dotted).replace("|", "\\|")
            lines.append(f"| [`{dotted.replace('torchpure', 'tp', 1)}`]({key}.md#{dotted}) | {line} |")
        lines.append("")
    return "\n".join(lines)
