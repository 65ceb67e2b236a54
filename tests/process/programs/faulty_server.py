"""`packlight serve` with the faulty runner of `faulty_engine`, in whichever process drives the device."""

import signal
import sys
import time

from service.settings.loading import load_settings

if __name__ == "__main__":
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    settings = load_settings({name.removeprefix("--").replace("-", "_"): value for name, value in options.items()})
    if settings.in_processes:
        from model.child_process import module_command
        from service.processes.supervisor import supervise

        sys.exit(supervise(settings, engine_command=module_command("tests.process.programs.faulty_engine")))

    from service.processes.server import serve
    from tests.process.programs.faulty_engine import load_faulty

    # Python runs the handler in the main thread, where it keeps the event loop busy.
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))
    sys.exit(serve(settings, load=load_faulty))
