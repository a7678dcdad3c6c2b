"""What a handler's module may do to its process: the worker logs, stops and ends in order all the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import Queue, StartWorker

DICT_CONFIG = """
import logging.config
logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL", "handlers": []}})
handle = noted
"""

FILE_CONFIG = """
import io, logging.config
logging.config.fileConfig(io.StringIO('''
[loggers]
keys=root
[handlers]
keys=none
[formatters]
keys=
[logger_root]
level=CRITICAL
handlers=none
[handler_none]
class=NullHandler
args=()
'''))
handle = noted
"""

DISABLED = """
import logging
logging.disable(logging.CRITICAL)
handle = noted
"""


@pytest.mark.direct
@pytest.mark.parametrize("module", [DICT_CONFIG, FILE_CONFIG, DISABLED], ids=["dict", "file", "disabled"])
def test_module_that_configures_logging_does_not_silence_the_worker(
    module: str, start_worker: StartWorker, queue: Queue, wait_until: Callable[..., Any]
) -> None:
    worker = start_worker(module)

    queue.until(queue.submit_one(), "completed")
    queue.terminate("orders-dispatcher")
    wait_until(lambda: "WARNING connection_lost" in worker.log)
    assert worker.stop() == 0
    assert "INFO exchanged" in worker.log
    assert "INFO worker_stopped" in worker.log


TAKES_SIGNALS = """
import signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
handle = gated
"""

BLOCKS_SIGNALS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
handle = gated
"""

SHORTENS_TIMEOUTS = """
import socket
socket.setdefaulttimeout(0.01)
handle = gated
"""


@pytest.mark.parametrize(
    "module", [TAKES_SIGNALS, BLOCKS_SIGNALS, SHORTENS_TIMEOUTS], ids=["taken", "blocked", "timeout"]
)
def test_module_does_not_take_the_graceful_stop_away(
    module: str,
    start_worker: StartWorker,
    queue: Queue,
    notes: Callable[..., Any],
    open_gate: Callable[..., None],
    wait_until: Callable[..., Any],
) -> None:
    worker = start_worker(module)
    order_id = queue.submit_one()
    wait_until(lambda: notes("begun"))

    worker.send(15)
    wait_until(lambda: "INFO worker_stopping" in worker.log)
    open_gate()

    assert worker.wait() == 0
    assert queue.find(order_id).status == "completed"


LEAVES_A_POOL = """
import atexit, concurrent.futures
pool = concurrent.futures.ThreadPoolExecutor()
atexit.register(pathlib.Path("exited").touch)

def handle(order, context):
    pool.submit(int).result()
    print("printed and never flushed")
"""

HANGS_AT_EXIT = (
    LEAVES_A_POOL
    + """
atexit.register(wait_for, "never")
"""
)


def test_what_a_module_left_for_the_exit_is_done_beside_a_pool_of_threads(
    start_worker: StartWorker, queue: Queue, tmp_path: Path
) -> None:
    worker = start_worker(LEAVES_A_POOL, PYTHONUNBUFFERED="")
    queue.until(queue.submit_one(), "completed")

    assert worker.stop() == 0
    assert "printed and never flushed" in worker.log
    assert (tmp_path / "exited").exists()


@pytest.mark.slow
def test_exit_that_hangs_is_left(start_worker: StartWorker, queue: Queue) -> None:
    worker = start_worker(HANGS_AT_EXIT, PYTHONUNBUFFERED="")
    queue.until(queue.submit_one(), "completed")

    assert worker.stop() == 0
    assert "printed and never flushed" in worker.log


PLANTED = "import pathlib; pathlib.Path('executed').touch()"
LATE = """
def handle(order, context):
    import of_the_folder
    noted(order, context)
"""


def test_handler_finds_its_folders_modules_late_and_the_worker_takes_none(
    start_worker: StartWorker, queue: Queue, tmp_path: Path
) -> None:
    (tmp_path / "of_the_folder.py").touch()
    # The first of these to be imported is, by Python itself, when the probes' address is bound.
    for name in ("stringprep", "falcon", "shlex"):
        (tmp_path / f"{name}.py").write_text(PLANTED)
    worker = start_worker(LATE, ORDERS_HEALTH_PORT=0)

    queue.until(queue.submit_one(), "completed")

    assert worker.stop() == 0
    assert not (tmp_path / "executed").exists()
