"""How many examples hypothesis draws: all of them in `make check`, a quarter in `make test`, which is to be quick."""

import os

from hypothesis import settings

USUAL = 100
PART = 4 if os.environ.get("QUICK_TESTS") else 1


def many(count: int) -> settings:
    """For a test that is to have more examples than others, or fewer."""
    return settings(max_examples=count // PART, deadline=None)
