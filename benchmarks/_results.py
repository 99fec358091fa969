"""Results of a figure: a JSON file, and a bar chart."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "jax", "jaxlib", "optax", "torchopt", "numpy")
VARIABLES = ("OMP_NUM_THREADS", "XLA_FLAGS")
_sections: dict[str, dict[str, Any]] = {}  # by file, then by title: a figure may have several reports


def save(figure: str, unit: str, programs: dict[str, dict[str, Any]], line: float | None = None) -> None:
    """Rewrite the figure's file with this section after the earlier ones, and draw the chart."""
    name, _, title = figure.partition(":")
    stem = name.replace(",", "").replace(" ", "_")
    sections = _sections.setdefault(stem, {})
    sections[title.strip()] = {"unit": unit, "line": line, "programs": programs}
    RESULTS.mkdir(exist_ok=True)
    saved = {"figure": name, "machine": machine(), "sections": sections}
    (RESULTS / f"{stem}.json").write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n")
    draw(saved, RESULTS / f"{stem}.png")


def machine() -> dict[str, Any]:
    """Describe the machine, its settings, and the versions of packages."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    variables = {name: os.environ.get(name, "") for name in VARIABLES}
    return {"cpu": _cpu(), "cores used": cores, "variables": variables, "versions": versions}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def draw(saved: dict[str, Any], path: Path) -> None:
    """Draw bars for each section: the medians, and error bars from the least to the greatest value."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sections = saved["sections"]
    rows = [len(section["programs"]) for section in sections.values()]
    figure = Figure(figsize=(9, 0.32 * sum(rows) + 1.1 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), squeeze=False, height_ratios=rows)[:, 0]
    for ax, (title, section) in zip(axes, sections.items(), strict=True):
        _bars(ax, section)
        ax.set_title(f"{saved['figure']}: {title}", fontsize=9, loc="left")
    figure.savefig(path, dpi=120)


def _bars(ax: Any, section: dict[str, Any]) -> None:
    programs = section["programs"]
    medians = [program["median"] for program in programs.values()]
    below = [program["median"] - program["least"] for program in programs.values()]
    above = [program["greatest"] - program["median"] for program in programs.values()]
    colors = ["C0" if name.startswith("torchpure") else "0.7" for name in programs]
    bars = ax.barh(list(programs), medians, xerr=(below, above), color=colors, error_kw={"lw": 1})
    ax.bar_label(bars, [f" {median:.3g}" for median in medians], fontsize=7, padding=4)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.tick_params(labelsize=7)
    ax.set_xlabel(section["unit"], fontsize=7)
    positive = [median for median in medians if median > 0]
    if positive and max(positive) > 30 * min(positive):
        ax.set_xscale("log")
    if section["line"] is not None:
        ax.axvline(section["line"], color="0.3", lw=1, ls="--")
