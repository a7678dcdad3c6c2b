"""The console script `orders-worker`."""

import atexit
import os
import sys
import threading
import time

from orders_worker.attempt.loading import load, simulated
from orders_worker.config import WorkerConfig
from orders_worker.worker import Worker, register
from schema import revision
from schema.embedded import locate
from schema.queue.workers import Registration
from schema.runtime import listening, logs, startup
from schema.runtime.connection import Connection
from schema.runtime.signals import StopSignals, show_stacks

_log = logs.Log(__name__)

EXIT_SECONDS = 3.0
"""How long the process waits for the threads of handlers once it is done, and for what runs at its exit."""

_UNENDING = ("orders-signals", "orders-supervisor")
"""The threads of this project that run until the process ends."""


def main() -> int:
    """Run one worker process until it is told to stop; return its exit status.

    0 after a stop, 1 without a usable database, 2 for a bad setting, 3 when its handlers hang, 4 when
    claims had to be left to the rescue.
    """
    startup.refuse_arguments("orders-worker", "Work orders until a signal comes.")
    status = startup.exit_status(_main)
    if _handlers_still_run(EXIT_SECONDS):
        # Without the interpreter's own shutdown, which waits for ever for a thread that never ends and
        # aborts the process when one is just writing to stderr.
        cleaning = threading.Thread(target=_clean_up, daemon=True)
        cleaning.start()
        cleaning.join(EXIT_SECONDS)
        os._exit(status)
    return status


def _handlers_still_run(seconds: float) -> bool:
    """Tell whether threads are left that handlers run in or have started, some time after the end."""
    give_up_at = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.name not in _UNENDING:
            thread.join(max(give_up_at - time.monotonic(), 0) if not thread.daemon else 0.1)
            if thread.is_alive():
                return True
    return False


def _clean_up() -> None:
    """Do what the interpreter's shutdown does for a handler's module: call its exit functions, and flush."""
    sys.stdout.flush()
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way
    sys.stdout.flush()
    sys.stderr.flush()


def _main() -> int:
    show_stacks()
    signals = StopSignals()
    signals.install()
    config = WorkerConfig.from_environment()
    logs.configure(config.log_format, level=config.log_level)
    startup.report_unknown_settings()
    handler = load(config.handler) if config.handler else simulated(config.simulated_seconds)
    # The handler's module may have set its own.
    signals.install()
    listener = None
    if config.health_port is not None:
        listener = listening.bind(config.host, config.health_port, port_setting="ORDERS_HEALTH_PORT")
    url = locate.resolve(config.database_url)

    def enter(connection: Connection) -> Registration:
        revision.check(connection)
        signals.defer()
        return register(connection, config=config)

    registration = startup.first(url, name="orders-worker", work=enter)
    if config.handler is None and config.database_url is not None:
        _log.warning("handler_simulated", seconds=config.simulated_seconds)
    worker = Worker(
        config, url=url, handler=handler, signals=signals, registration=registration, listener=listener
    )
    status = worker.run()
    signals.ignore()
    return status


if __name__ == "__main__":
    sys.exit(main())
