"""Errors that end a load test without a result. Each message is one line for the person at the command line.

LoadtestError           exit status 2
├── UsageError            the command line, a mix or a result file cannot be used
└── TargetError           the server cannot be reached, or refuses the requests
"""


class LoadtestError(Exception):
    """Base of everything that `loadtest` raises on purpose."""


class UsageError(LoadtestError):
    """The command line, a mix or a result file cannot be used."""


class TargetError(LoadtestError):
    """The server cannot be reached, or refuses the requests of this run."""
