"""How tests wait: for a condition, never for a time. Loads nothing, so that a test run of a test is cheap."""

import time
from collections.abc import Callable

# How long a test waits for a condition. A machine that does much else may need most of it.
PATIENCE_S = 60.0


def until(condition: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """Returns as soon as `condition` holds; fails if it does not within `patience_s`."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, f"a condition did not hold within {patience_s} s"
        time.sleep(0.005)
