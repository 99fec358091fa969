"""Processes that all tests of a module share."""

import pytest
from pool import Pool


@pytest.fixture(scope="module", params=[2, 4])
def pool(request, tmp_path_factory):
    """Start two processes, and four."""
    pool = Pool(request.param, tmp_path_factory.mktemp("processes"))
    yield pool
    pool.close()


@pytest.fixture
def short_pool(request, tmp_path):
    """Start processes that wait two seconds for each other: for tests that end one of them."""
    pool = Pool(3, tmp_path, seconds=2.0)
    yield pool
    pool.close()
