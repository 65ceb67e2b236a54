"""How tests wait: for a condition, never for a time. Loads nothing, so that a test run of a test is cheap."""

import time
from collections.abc import Callable

# How long a test waits for a condition. A machine that does much else may need most of it.
PATIENCE_S = 60.0


def until(condition: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """Returns soon after `condition` holds; fails if it does not within `patience_s`."""
    began_s = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began_s
        assert waited_s < patience_s, f"a condition did not hold within {patience_s} s"
        # The longer it takes, the less often it is asked: many conditions ask a server, which is to do something else.
        time.sleep(min(max(waited_s / 20, 0.005), 0.02))
