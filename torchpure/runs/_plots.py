"""The two plots of a run, drawn without matplotlib's global state."""

import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .fits import Data, Network, Sample, measure

MAX_NAMED = 20  # classes
MAX_DRAWN = 4000  # more points would only hide each other
HIGHEST = 1e250  # margins around larger numbers overflow
INK, BLUE, ORANGE, GREY = "#222222", "#1f5fa8", "#d9661f", "#9aa0a6"


def draw_loss(path: Path, losses: Sequence[float], test_loss: float, title: str, name: str) -> None:
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
    axes.set_ylabel(name)
    _finish(path, figure, axes)


def draw_fit(path: Path, network: Network, data: Data, target: str, title: str) -> None:
    """Draw target, points and model over one number; predicted against true values; or the confusion of classes."""
    curve = [(column.kind, column.width) for column in data.preprocessing.inputs] == [("number", 1)]
    curve = curve and data.train.y.ndim == 1 and not data.preprocessing.classes
    figure, axes = _figure(title, 4.6 if curve else 6.4)
    with torch.no_grad():
        if curve:
            _draw_curve(axes, network, data, target)
        elif data.preprocessing.classes:
            _draw_confusion(axes, network, data, target)
        else:
            _draw_agreement(axes, network, data, target)
    _finish(path, figure, axes)


def _draw_confusion(axes: Axes, network: Network, data: Data, target: str) -> None:
    counts = torch.tensor(measure(network, data.test, "cross-entropy")["confusion"])
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    names = [str(name)[:12] for name in data.preprocessing.classes]
    if len(names) <= MAX_NAMED:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        for (row, column), count in zip(itertools.product(range(len(names)), repeat=2), counts.flatten(), strict=True):
            ink = "white" if shares[row, column] > 0.5 else INK
            axes.text(column, row, str(int(count)), ha="center", va="center", color=ink, fontsize=9)
    axes.set_xlabel(f"predicted {target}", parse_math=False)
    axes.set_ylabel(f"true {target}, {len(data.test.y)} test points", parse_math=False)


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
    several = data.train.y.ndim > 1
    # Several targets share the axes, so each is drawn in its standard deviations.
    mean, scale = (network.target_mean, network.target_scale) if several else (0.0, 1.0)
    for sample, marker, color, label in _samples(data, BLUE):
        x, y = sample.x[:MAX_DRAWN], (sample.y[:MAX_DRAWN] - mean) / scale
        predicted = (network(x) - mean) / scale
        axes.scatter(
            y.flatten().tolist(),
            predicted.flatten().tolist(),
            s=_size(data),
            marker=marker,
            color=color,
            linewidths=0,
            label=label,
        )
    train = (data.train.y - mean) / scale
    low, high = float(train.min()), float(train.max())
    axes.axline((low, low), slope=1, color=GREY, linewidth=1.5, zorder=0, label="perfect agreement")
    unit = ", in standard deviations" if several else ""
    axes.set_xlabel(f"true {target}{unit}", parse_math=False)
    axes.set_ylabel(f"predicted {target}{unit}", parse_math=False)
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
