"""Python's garbage collector in a process that serves. What a request holds never waits for it: see `errors.let_go`."""

import gc

# Of net allocations before the young are collected, 700 by default; then the older every tenth time, as by default.
# Collections walk all that waits, time and again: with 10,000 images in the queue an image cost 2.1 to 2.6 times what
# it costs with 300, and costs 1.0 to 1.2 times that with this (`python -m loadtest.bench scale`).
_YOUNG = 10_000


def settle() -> None:
    """What has been made until now stays for good: walking it kept the loop for 110 ms at a time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
