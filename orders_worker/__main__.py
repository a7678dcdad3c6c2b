"""The console script `orders-worker`."""

import os
import sys
import threading

import psycopg

from orders_worker import worker
from orders_worker.config import WorkerConfig
from orders_worker.handler import load
from orders_worker.simulated import Simulated
from schema import logs, revision, startup
from schema.errors import StartError
from schema.stopping import StopSignals

EXIT_SECONDS = 3.0
"""How long the process waits for threads of the handlers' own once it is done."""


def main() -> int:
    """Run one worker process until it is told to stop; return its exit status.

    0 after a stop, 1 without a usable database, 2 for a bad setting, 3 when its handlers hang, 4 when
    claims had to be left to the rescue.
    """
    status = startup.exit_status(_main)
    _leave_within(EXIT_SECONDS, status)
    return status


def _leave_within(seconds: float, status: int) -> None:
    """End the process even if threads that a handler started never end."""
    timer = threading.Timer(seconds, os._exit, [status])
    timer.daemon = True
    timer.start()


def _main() -> int:
    signals = StopSignals()
    signals.install()
    config = WorkerConfig.from_environment()
    logs.configure(config.log_format)
    handler = load(config.handler) if config.handler else Simulated(config.simulated_seconds)
    url = config.database.resolve()
    first = startup.connect(url, name="orders-worker")
    try:
        with first:
            revision.check(first)
            registration = worker.register(first, config=config)
    except psycopg.Error as error:
        raise StartError(f"the database refuses this worker: {logs.first_line(error)}") from error
    status = worker.run(config, url=url, handler=handler, signals=signals, registration=registration)
    signals.ignore()
    return status


if __name__ == "__main__":
    sys.exit(main())
