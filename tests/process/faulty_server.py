"""`packlight serve` in processes, with the engine of `faulty_engine`."""

import sys

from service.processes.child import module_command
from service.processes.supervisor import supervise
from service.settings import load_settings

if __name__ == "__main__":
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    settings = load_settings({name.removeprefix("--").replace("-", "_"): value for name, value in options.items()})
    sys.exit(supervise(settings, engine_command=module_command("tests.process.faulty_engine")))
