"""Fixtures that several files use."""

import pytest

from training.learning.pool import Pool


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Twelve drawn pictures."""
    pool = Pool(tmp_path_factory.mktemp("drawn"), count=12, shard=4)
    assert list(pool.fill(1)) == [0, 4, 8, 12]
    return pool
