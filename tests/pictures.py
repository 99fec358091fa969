"""Small pictures in place of those of a run, for tests that look at other files: drawing takes most of a short run."""

import base64

import pytest

from torchpure.runs import _run, _sweep_best
from torchpure.runs.sweeps import _pictures

# one black pixel
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


@pytest.fixture
def real_pictures():
    """Let a test draw what a user sees."""


@pytest.fixture(autouse=True)
def _small_pictures(request, monkeypatch):
    if "real_pictures" in request.fixturenames:
        return
    write = lambda path, *others: path.write_bytes(PNG)  # noqa: E731
    monkeypatch.setattr(_run, "draw_loss", write)
    monkeypatch.setattr(_run, "draw_fit", write)
    monkeypatch.setattr(_sweep_best, "draw_fit", write)
    monkeypatch.setattr(_pictures, "_draw", write)
