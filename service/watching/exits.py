"""The statuses with which commands and processes end, if not with 0."""

# At once, after a second signal, or because something did not end in order.
EXIT_FORCED = 1
EXIT_CANNOT_START = 2
# A part has ended, or hangs, and nothing in the process replaces it.
EXIT_LOST = 3
# An engine's canary has failed.
EXIT_UNTRUE = 4
# As shells show a process that SIGINT ended.
EXIT_INTERRUPTED = 130
