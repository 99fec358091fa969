"""The two plots of a run, drawn without matplotlib's global state."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ._network import Network
from ._points import Data, Sample

MAX_DRAWN = 4000  # more points would only hide each other
HIGHEST = 1e250  # margins around larger numbers overflow
INK, BLUE, ORANGE, GREY = "#222222", "#1f5fa8", "#d9661f", "#9aa0a6"


def draw_loss(path: Path, losses: Sequence[float], test_loss: float, title: str) -> None:
    """Draw the training loss over the steps on a log scale, and the final test loss."""
    figure, axes = _figure(title)
    stride = max(1, len(losses) // MAX_DRAWN)
    steps = range(1, len(losses) + 1)
    drawn = [min(loss, HIGHEST) for loss in losses[::stride]]
    axes.plot(steps[::stride], drawn, color=BLUE, linewidth=1.6, label="training")
    if 0 < test_loss < float("inf"):
        axes.axhline(
            test_loss, color=ORANGE, linewidth=1.2, linestyle=(0, (5, 3)), label=f"test, at the end: {test_loss:.2e}"
        )
    if any(loss > 0 for loss in losses):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("mean squared error")
    _finish(path, figure, axes)


def draw_fit(path: Path, network: Network, data: Data, target: str, title: str) -> None:
    """Draw target, points and model over the input; for several inputs draw predicted against true values."""
    figure, axes = _figure(title, 4.6 if len(data.inputs) == 1 else 6.4)
    with torch.no_grad():
        if len(data.inputs) == 1:
            _draw_curve(axes, network, data, target)
        else:
            _draw_agreement(axes, network, data, target)
    _finish(path, figure, axes)


def _draw_curve(axes: Axes, network: Network, data: Data, target: str) -> None:
    (low, high), (name,) = data.bounds[0], data.inputs
    grid = torch.linspace(low, high, 600, dtype=torch.float64).unsqueeze(-1)
    if data.truth is not None:
        axes.plot(grid[:, 0].tolist(), data.truth(grid).tolist(), color=GREY, linewidth=4, alpha=0.6, label="target")
    for sample, marker, color, label in _samples(data, INK):
        x, y = sample.x[:MAX_DRAWN, 0], sample.y[:MAX_DRAWN]
        axes.scatter(
            x.tolist(), y.tolist(), s=_size(data), marker=marker, color=color, linewidths=0, zorder=3, label=label
        )
    axes.plot(grid[:, 0].tolist(), network(grid).tolist(), color=BLUE, linewidth=1.8, zorder=4, label="model")
    axes.set_xlabel(name, parse_math=False)
    axes.set_ylabel(target, parse_math=False)


def _draw_agreement(axes: Axes, network: Network, data: Data, target: str) -> None:
    for sample, marker, color, label in _samples(data, BLUE):
        x, y = sample.x[:MAX_DRAWN], sample.y[:MAX_DRAWN]
        axes.scatter(
            y.tolist(), network(x).tolist(), s=_size(data), marker=marker, color=color, linewidths=0, label=label
        )
    low, high = float(data.train.y.min()), float(data.train.y.max())
    axes.axline((low, low), slope=1, color=GREY, linewidth=1.5, zorder=0, label="perfect agreement")
    axes.set_xlabel(f"true {target}", parse_math=False)
    axes.set_ylabel(f"predicted {target}", parse_math=False)
    if low < high:
        axes.set_aspect("equal", adjustable="datalim")


def _samples(data: Data, ink: str) -> Iterator[tuple[Sample, str, str, str]]:
    yield data.train, "o", ink, f"training, {len(data.train.y)} points"
    yield data.test, "D", ORANGE, f"test, {len(data.test.y)} points"


def _size(data: Data) -> int:
    return 22 if len(data.train.y) + len(data.test.y) <= 200 else 9


def _figure(title: str, height: float = 4.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(_short(title), parse_math=False, fontsize=11, loc="left", color=INK)
    axes.grid(visible=True, color="#e4e6e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finish(path: Path, figure: Figure, axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph that the font lacks is drawn as a box
        figure.savefig(path)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
