"""What ends a load test before it could measure anything. Each message is one line for whoever typed the command.

LoadtestError           exit status 2
├── UsageError            the command, a mix or a result file asks for something that cannot be
└── TargetError           the server is not there, or does not take the requests
"""


class LoadtestError(Exception):
    """Base of everything that `loadtest` raises on purpose."""


class UsageError(LoadtestError):
    """The command line, a mix or a result file cannot be used."""


class TargetError(LoadtestError):
    """The server cannot be reached, or refuses the requests of this run."""
