"""What tests of compiled functions share."""

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of compiled programs of one test alone."""
    made = tmp_path / "cache"
    monkeypatch.setenv("TORCHPURE_CACHE", str(made))
    return made
