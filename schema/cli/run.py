"""`orders migrate`, and `orders run`: the API and one worker together, until a signal comes or one ends."""

import http
import http.client
import signal
import sys
import threading
import time
from contextlib import closing

import click

from schema import revision
from schema.cli.terminal import Answer, answering
from schema.embedded import locate
from schema.runtime import listening, settings, startup
from schema.runtime.signals import StopSignals
from schema.runtime.supervisor import Process, Supervisor

_PAUSE_SECONDS = 0.1
_READY_SECONDS = 30.0
_PROGRAMS = (("orders_api",), ("orders_worker",))


@click.command()
@answering
def migrate() -> Answer:
    """Bring the database to the newest schema revision."""
    found = _upgrade()
    return Answer([_told(found)], {"revision": found})


@click.command()
def run() -> int:
    """Migrate, then run the API and one worker until Ctrl-C."""
    host, port = settings.HOST.read(), settings.PORT.read()
    print(_told(_upgrade()), flush=True)
    return _supervise(host, port)


def _told(found: str) -> str:
    newer = f", newer than this release's {revision.NEEDED}, which may go on with it"
    return f"the schema is at revision {found}{newer if found > revision.NEEDED else ''}"


def _upgrade() -> str:
    """Migrate; return the revision that the database is at."""
    url = locate.resolve(settings.DATABASE_URL.read())
    startup.connect(url, name="orders-migrate").close()
    # SQLAlchemy and Alembic take longer to import than the rest of `orders --help`, which has every command.
    from schema import migrate as migration  # noqa: PLC0415

    return migration.upgrade(url)


def _supervise(host: str, port: int) -> int:
    """Run both programs, print how to reach them, and stop both when either ends.

    Returns the first exit status that is not 0. Raises `SettingError`, before anything is started, if another
    program listens on the address. Kills no program: the worker stops within its own
    `ORDERS_SHUTDOWN_SECONDS`.
    """
    listening.bind(host, port, port_setting="ORDERS_PORT").close()
    stop = StopSignals()
    stop.install()
    stopping = threading.Event()

    def explain(process: Process) -> None:
        stopping.set()
        _explain(process)

    supervisor = Supervisor(_PROGRAMS, stop=stop, on_end=explain)
    threading.Thread(target=_welcome, args=[host, port, stopping], daemon=True).start()
    ends = supervisor.run()
    stop.ignore()
    return next(filter(None, map(_shell_status, ends)), 0)


def _explain(process: Process) -> None:
    """Print why everything stops if a program failed."""
    if status := process.returncode:
        end = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
        print(f"{process.module} {end}: stopping", file=sys.stderr)


def _shell_status(process: Process) -> int:
    """Return the status as a shell would, or 0 if SIGTERM ended a program before it handled signals."""
    status = process.returncode
    if process.asked and status == -signal.SIGTERM:
        return 0
    return status if status >= 0 else 128 - status


def _welcome(host: str, port: int, stopping: threading.Event) -> None:
    """Print how to reach the API as soon as it is ready, unless a program has failed by then."""
    give_up_at = time.monotonic() + _READY_SECONDS
    while port and time.monotonic() < give_up_at and not stopping.wait(_PAUSE_SECONDS):
        if _is_ready(host, port) and not stopping.is_set():
            print(_WELCOME.format(url=listening.url(host, port), order=_ORDER), flush=True)
            return


_ORDER = '{"user_id": "ada", "item_ids": ["tea", "milk"], "total_amount": 250.75}'
_WELCOME = """
  orders   {url}/orders
  metrics  {url}/metrics
  try      curl -H 'Content-Type: application/json' -d '{order}' {url}/orders
  Ctrl-C ends the API and the worker; `make stop-db` ends the database.
"""


def _is_ready(host: str, port: int) -> bool:
    with closing(http.client.HTTPConnection(host, port, timeout=1)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
