"""Run the API and one worker together, as `make run` does, until a signal comes or one of them ends."""

import http
import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from schema.runtime import listening
from schema.runtime.config import ServiceConfig

_PAUSE_SECONDS = 0.1
_READY_SECONDS = 30.0
_PROGRAMS = ("orders_api", "orders_worker")


def run(config: ServiceConfig) -> int:
    """Start both, say how to reach them, and end both when either ends; return the status of that one.

    Raises `SettingError` if the address can't be had, because another API has it: then nothing is started.

    A signal is passed on to both. They count two within a second as one, so that Ctrl-C, which the
    terminal sends to them as well, does not hurry them.
    """
    listening.bind(config.host, config.port, port_setting="ORDERS_PORT").close()
    children: list[subprocess.Popen[bytes]] = []
    signals: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        _terminate(children)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    for program in _PROGRAMS:
        children.append(subprocess.Popen([sys.executable, "-m", program]))  # noqa: PERF401 - see pass_on
    if signals:
        _terminate(children)
    if config.port and _becomes_ready(config, children):
        print(_welcome(config), flush=True)
    while all(child.poll() is None for child in children):
        time.sleep(_PAUSE_SECONDS)
    first = next(child for child in children if child.poll() is not None)
    status = _explained(_PROGRAMS[children.index(first)], first.wait(), asked=bool(signals))
    if not signals:  # a second one would have the other hand its orders back
        _terminate(children)
    return status or max(_shell_status(child.wait(), asked=True) for child in children)


def _explained(program: str, status: int, *, asked: bool) -> int:
    """Say why everything stops if a program failed; return its status as a shell would."""
    if status > 0:
        print(f"{program} ended with status {status}: stopping", file=sys.stderr)
    elif _shell_status(status, asked=asked) > 0:
        print(f"{program} was killed by signal {-status}: stopping", file=sys.stderr)
    return _shell_status(status, asked=asked)


def _shell_status(status: int, *, asked: bool) -> int:
    """Return 0 also for a program that was `asked` to end so early that the signal killed it."""
    if asked and status == -signal.SIGTERM:
        return 0
    return status if status >= 0 else 128 - status


def _terminate(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()


def _becomes_ready(config: ServiceConfig, children: Sequence[subprocess.Popen[bytes]]) -> bool:
    give_up_at = time.monotonic() + _READY_SECONDS
    while time.monotonic() < give_up_at and all(child.poll() is None for child in children):
        if _is_ready(config):
            return True
        time.sleep(_PAUSE_SECONDS)
    return False


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
