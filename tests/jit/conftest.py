"""Fixtures of the tests of compiled functions."""

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Give the test an empty cache folder."""
    made = tmp_path / "cache"
    monkeypatch.setenv("TORCHPURE_CACHE", str(made))
    return made
