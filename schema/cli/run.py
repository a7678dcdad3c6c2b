"""`orders run`: the API and one worker together, until a signal comes or one of them ends."""

import http
import http.client
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from schema.runtime import listening
from schema.runtime.config import ServiceConfig
from schema.runtime.signals import StopSignals
from schema.runtime.supervisor import Ended, Policy, Program, Supervisor

_PAUSE_SECONDS = 0.1
_READY_SECONDS = 30.0
_PROGRAMS = (Program("orders_api"), Program("orders_worker"))


def run(config: ServiceConfig) -> int:
    """Start both, say how to reach them, and stop both when either ends; return the first failed status.

    Raises `SettingError` if the address can't be had, because another API has it: then nothing is started.
    No program is killed: the worker stops within its own `ORDERS_SHUTDOWN_SECONDS`.
    """
    listening.bind(config.host, config.port, port_setting="ORDERS_PORT").close()
    stop = StopSignals()
    stop.install()
    supervisor = Supervisor(_PROGRAMS, Policy(replace=False), stop=stop, on_end=_explain)
    with _welcoming(config):
        ends = supervisor.run()
    stop.ignore()
    return next(filter(None, map(_shell_status, ends)), 0)


def _explain(ended: Ended) -> None:
    """Say why everything stops if a program failed."""
    if ended.status > 0:
        print(f"{ended.module} ended with status {ended.status}: stopping", file=sys.stderr)
    elif ended.status < 0:
        print(f"{ended.module} was killed by signal {-ended.status}: stopping", file=sys.stderr)


def _shell_status(ended: Ended) -> int:
    """Return its status as a shell would; 0 also if it was asked to stop before it took signals."""
    if ended.asked and ended.status == -signal.SIGTERM:
        return 0
    return ended.status if ended.status >= 0 else 128 - ended.status


@contextmanager
def _welcoming(config: ServiceConfig) -> Iterator[None]:
    """Print how to reach the API as soon as it is ready, from a thread."""
    over = threading.Event()
    thread = threading.Thread(target=_welcome_when_ready, args=[config, over])
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _welcome_when_ready(config: ServiceConfig, over: threading.Event) -> None:
    give_up_at = time.monotonic() + _READY_SECONDS
    while config.port and time.monotonic() < give_up_at and not over.wait(_PAUSE_SECONDS):
        if _is_ready(config):
            print(_welcome(config), flush=True)
            return


def _is_ready(config: ServiceConfig) -> bool:
    connection = http.client.HTTPConnection(config.host, config.port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _welcome(config: ServiceConfig) -> str:
    url = listening.url(config.host, config.port)
    order = '{"user_id": "ada", "item_ids": ["tea", "milk"], "total_amount": 250.75}'
    return f"""
  orders   {url}/orders
  metrics  {url}/metrics
  try      curl -H 'Content-Type: application/json' -d '{order}' {url}/orders
  Ctrl-C ends the API and the worker; `make stop-db` ends the database.
"""
