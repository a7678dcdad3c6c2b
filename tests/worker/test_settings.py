import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg import conninfo

from schema import __version__, migrate
from schema.embedded.server import Server
from schema.reports import metrics
from schema.runtime.connection import Connection
from tests.worker.conftest import StartWorker

MODULES = {
    "broken": "def handle(:\n    pass\n",
    "raising": 'raise RuntimeError("first line\\nsecond line\\n\\nfourth")',
    "no_callable": "handle = 7",
    "fine": "def handle(order, context): pass",
    "generating": """
import functools

def handle(order, context): yield

async def asynchronous(order, context): yield

class Calls:
    def __call__(self, order, context): yield

partial = functools.partial(asynchronous)
called = Calls()
""",
    "a_class": """
import functools

class Handler:
    def __init__(self, order, context): pass

partial = functools.partial(Handler)
""",
    "recursing": """
class Recursing(Exception):
    def __str__(self): return str(self)

raise Recursing
""",
    "needs_more": "import a_module_that_is_not_there",
    "leaves": "import sys\nsys.exit('usage: leaves')",
}

SECRET = "s3cr3t"  # noqa: S105 - to be found nowhere

BAD = [
    ("ORDERS_CONCURRENCY", "0", "0"),
    ("ORDERS_CONCURRENCY", "x", "x"),
    ("ORDERS_CONCURRENCY", "1001", "1001"),
    ("ORDERS_CONCURRENCY", "-1", "-1"),
    ("ORDERS_CONCURRENCY", "1.5", "1.5"),
    ("ORDERS_LEASE_SECONDS", "nan", "nan"),
    ("ORDERS_LEASE_SECONDS", "0.5", "0.5"),
    ("ORDERS_LEASE_SECONDS", "inf", "inf"),
    ("ORDERS_POLL_SECONDS", "2", "2"),
    ("ORDERS_POLL_SECONDS", "0", "0"),
    ("ORDERS_MAX_ATTEMPTS", "0", "0"),
    ("ORDERS_BACKOFF_SECONDS", "-1", "-1"),
    ("ORDERS_BACKOFF_SECONDS", "601", "601"),
    ("ORDERS_TIMEOUT_SECONDS", "0", "0"),
    ("ORDERS_TIMEOUT_SECONDS", "soon", "soon"),
    ("ORDERS_SHUTDOWN_SECONDS", "1e9", "1e9"),
    ("ORDERS_SIMULATED_SECONDS", "two", "two"),
    ("ORDERS_HANDLER_CONNECTIONS", "11", "11"),
    ("ORDERS_HEALTH_PORT", "65536", "65536"),
    ("ORDERS_HEALTH_PORT", "http", "http"),
    ("ORDERS_LOG_FORMAT", "yaml", "yaml"),
    ("DATABASE_URL", f"postgresql://orders:{SECRET}@[db/orders", ""),
    ("DATABASE_URL", f"mysql://orders:{SECRET}@db/orders", ""),
    ("DATABASE_URL", f"postgresql://orders:{SECRET}@db:x/orders?no=such", ""),
    ("ORDERS_HANDLER", "no_such_module:handle", "no_such_module"),
    ("ORDERS_HANDLER", "fine:missing", "missing"),
    ("ORDERS_HANDLER", "fine", "fine"),
    ("ORDERS_HANDLER", ":handle", ":handle"),
    ("ORDERS_HANDLER", "fine:", "fine:"),
    ("ORDERS_HANDLER", "..fine:handle", "..fine"),
    ("ORDERS_HANDLER", "no_callable:handle", "callable"),
    ("ORDERS_HANDLER", "broken:handle", "SyntaxError"),
    ("ORDERS_HANDLER", "raising:handle", "first line second line fourth"),
    ("ORDERS_HANDLER", "needs_more:handle", "a_module_that_is_not_there"),
    ("ORDERS_HANDLER", "generating:handle", "no generator"),
    ("ORDERS_HANDLER", "generating:asynchronous", "no generator"),
    ("ORDERS_HANDLER", "generating:partial", "no generator"),
    ("ORDERS_HANDLER", "generating:called", "no generator"),
    ("ORDERS_HANDLER", "a_class:Handler", "a function: calling a class only makes an object"),
    ("ORDERS_HANDLER", "a_class:partial", "a function: calling a class only makes an object"),
    ("ORDERS_HANDLER", "recursing:handle", "Recursing"),
    ("ORDERS_HANDLER", "leaves:handle", "usage: leaves"),
]


def run(folder: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "orders_worker"],
        cwd=folder,
        env={**os.environ, "DATABASE_URL": "host=/nowhere", **settings},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(("name", "value", "named"), BAD)
def test_bad_setting_stops_the_worker_with_one_line_that_names_it(
    tmp_path: Path, name: str, value: str, named: str
) -> None:
    for module, source in MODULES.items():
        (tmp_path / f"{module}.py").write_text(source)

    ended = run(tmp_path, **{name: value})

    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(name)
    assert named in line
    assert "Traceback" not in line
    assert SECRET not in line


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("ORDERS_HEALTH_PORT", "127.0.0.1"),
        ("ORDERS_HOST", "no such host"),
        ("ORDERS_HOST", "192.0.2.1"),
        ("ORDERS_HOST", "x" * 70),
    ],
)
def test_address_for_probes_that_can_not_be_had_stops_the_worker_with_one_line_that_names_it(
    tmp_path: Path, name: str, host: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = run(tmp_path, ORDERS_HEALTH_PORT=port, ORDERS_HOST=host)

    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{name} is '{port if name == 'ORDERS_HEALTH_PORT' else host}': ")


def test_schema_that_is_missing_stops_the_worker_with_the_command_to_run(
    tmp_path: Path, empty_database_url: str
) -> None:
    ended = run(tmp_path, DATABASE_URL=empty_database_url)

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "orders migrate" in line


@pytest.mark.direct("poolers refuse options")
def test_role_that_may_not_use_the_tables_stops_the_worker_with_one_line(
    tmp_path: Path, connection: Connection, database_url: str
) -> None:
    role = f"nobody_{secrets.token_hex(4)}"
    connection.execute(f"CREATE ROLE {role}")
    options = conninfo.make_conninfo(database_url, options=f"-c role={role}")
    try:
        ended = run(tmp_path, DATABASE_URL=options)
    finally:
        connection.execute(f"DROP ROLE {role}")

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "permission denied" in line


@pytest.mark.slow
def test_database_that_stays_away_is_said_once_and_waited_for_30_seconds(tmp_path: Path) -> None:
    ended = run(tmp_path, DATABASE_URL=f"postgresql://orders:{SECRET}@127.0.0.1:1/orders")

    assert ended.returncode == 1
    waiting, given_up = ended.stderr.splitlines()
    assert waiting.startswith("waiting for the database (DATABASE_URL)")
    assert given_up.startswith("no database within 30 seconds")
    assert SECRET not in ended.stderr


def test_worker_starts_when_the_database_comes_up_meanwhile(
    start_worker: StartWorker, private_server: Server, wait_until: Callable[..., Any]
) -> None:
    url = private_server.url
    migrate.upgrade(url)
    private_server.stop()
    worker = start_worker(url=url, ready=False)
    wait_until(lambda: "waiting for the database" in worker.log)

    private_server.ensure_running()

    wait_until(lambda: "worker_registered" in worker.log)
    assert worker.log.count("waiting for") == 1
    assert worker.stop() == 0


def test_simulated_handler_on_somebodys_database_is_warned_of_and_in_the_metrics(
    start_worker: StartWorker, database_url: str, wait_until: Callable[..., Any]
) -> None:
    simulated = start_worker(ORDERS_HANDLER="", ORDERS_SIMULATED_SECONDS=0)
    real = start_worker()
    with Connection.open(database_url, name="test") as connection:
        found = metrics.read(connection, simulated_seconds=2).live_handlers
        running = {each.handler: each for each in found}

    wait_until(lambda: "WARNING handler_simulated" in simulated.log)
    assert f"slots=1 handler=simulated version={__version__}" in simulated.log
    assert re.search(r"slots=1 handler=handler_\w+:handle version=", real.log)
    assert simulated.stop() == real.stop() == 0
    assert "handler_simulated" not in real.log
    assert re.fullmatch(r"handler_\w+:handle simulated", " ".join(sorted(map(str, running))))
    assert {(worker.version, worker.workers) for worker in running.values()} == {(__version__, 1)}


def test_password_is_in_no_message_of_a_worker_that_can_not_log_in(tmp_path: Path, database_url: str) -> None:
    url = conninfo.make_conninfo(database_url, dbname="no_such_database", password=SECRET)

    ended = run(tmp_path, DATABASE_URL=url)

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("the database (DATABASE_URL) does not let this program in: ")
    assert "no_such_database" in line
    assert SECRET not in line


def test_variable_that_is_no_setting_though_it_looks_like_one_is_named(tmp_path: Path) -> None:
    ended = run(tmp_path, ORDERS_CONCURENCY="8", ORDERS_SHOP=SECRET, DATABASE_URL="host=/none sslmode=none")

    first, second, _ = ended.stderr.splitlines()
    assert first.endswith("WARNING setting_unknown name=ORDERS_CONCURENCY nearest=ORDERS_CONCURRENCY")
    assert second.endswith("WARNING setting_unknown name=ORDERS_SHOP nearest=None")
