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
def own_pool(tmp_path):
    """Start three processes for one test, which ends one of them, and wait until all are there."""
    pool = Pool(3, tmp_path)
    pool.results("fails", "nothing")
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Start two processes for all tests of sharded training."""
    pool = Pool(2, tmp_path_factory.mktemp("processes"))
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Start four processes."""
    pool = Pool(4, tmp_path_factory.mktemp("processes"))
    yield pool
    pool.close()
