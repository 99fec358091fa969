from pathlib import Path

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Make an empty folder the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def listing():
    return lambda folder: sorted(path.name for path in Path(folder).iterdir())
