"""The curves of runs: losses together, each other metric, and groups such as norms by layer."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ._figure import Figure, Series

MAX_SERIES = 60  # of one chart
MAX_FIGURES = 100

Metrics = Mapping[str, np.ndarray]  # `step` and other columns


def curves(runs: Sequence[tuple[str, Metrics]], ends: Sequence[tuple[float, float] | None]) -> Iterator[Figure]:
    """Yield the charts of metrics that have one number a step; `ends` has step and test loss at the end of each run."""
    names = list(dict.fromkeys(name for _, metrics in runs for name in metrics if name != "step" and "/" not in name))
    losses = [name for name in names if "loss" in name.lower()]
    if losses:
        series = _series(runs, losses)
        for (name, _), color, end in zip(runs, range(len(runs)), ends, strict=True):
            if end is not None:
                step, loss = np.array([end[0]]), np.array([end[1]])
                series.append(Series(f"{name}: test loss at the end", step, loss, color, 1, "markers"))
        yield Figure("Loss", "step", "loss", series)
    for name in [name for name in names if name not in losses][:MAX_FIGURES]:
        yield Figure(_words(name), "step", _words(name), _series(runs, [name]))


def groups(runs: Sequence[tuple[str, Metrics]]) -> Iterator[Figure]:
    """Yield a chart for each group of metrics of each run, such as gradient norms by layer."""
    for run, metrics in runs:
        found: dict[str, list[str]] = {}
        for name in metrics:
            if "/" in name:
                found.setdefault(name.partition("/")[0], []).append(name)
        for group, names in list(found.items())[:MAX_FIGURES]:
            more = f" (the first {MAX_SERIES} of {len(names)})" if len(names) > MAX_SERIES else ""
            series = [
                Series(name.partition("/")[2], *_finite(metrics, name), index, index // 8)
                for index, name in enumerate(names[:MAX_SERIES])
            ]
            yield Figure(f"{_words(group)}: {run}{more}", "step", _words(group), series)


def _series(runs: Sequence[tuple[str, Metrics]], names: Sequence[str]) -> list[Series]:
    return [
        Series(run if len(names) == 1 else f"{run}: {_words(name)}", *_finite(metrics, name), color, style)
        for color, (run, metrics) in enumerate(runs[:MAX_SERIES])
        for style, name in enumerate(names)
        if name in metrics
    ]


def _finite(metrics: Metrics, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Leave out steps without this metric: a metric of every tenth step is a line, not single points."""
    present = ~np.isnan(metrics[name])
    return metrics["step"][present], metrics[name][present]


def _words(name: str) -> str:
    return name.replace("_", " ")
