"""`packlight serve` in processes, with the engine of `faulty_engine`."""

import sys

from service.child import module_command
from service.settings import load_settings
from service.supervisor import supervise

if __name__ == "__main__":
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    settings = load_settings({name.removeprefix("--").replace("-", "_"): value for name, value in options.items()})
    sys.exit(supervise(settings, engine_command=module_command("tests.process.faulty_engine")))
