"""`bench/load.py` tells the truth about a run: what was accepted and what came of it."""

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from schema.runtime.connection import Connection
from tests.api.conftest import Api

SCRIPT = Path(__file__).parents[2] / "bench" / "load.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("load", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["load"] = module
    spec.loader.exec_module(module)
    return module


load = _load()


def run(url: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "ORDERS": "60", "CLIENTS": "10", **settings}
    return subprocess.run(
        [sys.executable, SCRIPT, url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def work(connect: Callable[[], Connection]) -> Iterator[Callable[[str], None]]:
    """Play a worker that runs one statement over and over."""
    done = threading.Event()
    threads: list[threading.Thread] = []

    def begin(statement: str) -> None:
        connection = connect()

        def loop() -> None:
            while not done.wait(0.02):
                connection.execute(statement)

        threads.append(threading.Thread(target=loop))
        threads[-1].start()

    yield begin
    done.set()
    for thread in threads:
        thread.join()


COMPLETE = """
UPDATE orders
SET status = 'completed', started_at = clock_timestamp(), finished_at = clock_timestamp()
WHERE status = 'pending'
"""


def test_run_in_which_all_is_completed_in_order_succeeds(api: Api, work: Callable[[str], None]) -> None:
    work(COMPLETE)

    result = run(api.url)

    assert result.returncode == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["accepted"] == "60"
    assert lines["failed"] == "0"
    assert lines["completed"] == "60"
    assert lines["missing"] == "0"
    assert "make verify-fcfs" in lines["FCFS"]
    assert lines["rate"].endswith("orders/s")
    assert lines["latency"].startswith("p50 ")
    # No terminal looks on, so no bar is drawn.
    assert "\r" not in result.stderr
    assert len(result.stderr.splitlines()) <= 22


def test_orders_are_the_original_load_tests(
    api: Api, work: Callable[[str], None], connection: Connection
) -> None:
    work(COMPLETE)
    run(api.url)

    row = connection.execute(
        "SELECT count(*), count(DISTINCT user_id), min(cardinality(item_ids)), max(cardinality(item_ids)),"
        " min(total_amount)::text, max(total_amount)::text FROM orders"
    ).fetchone()
    assert row == (60, 60, 3, 3, "150.75", "150.75")


def test_order_that_is_not_completed_fails_the_run(api: Api, work: Callable[[str], None]) -> None:
    work(
        "UPDATE orders SET status = CASE WHEN seq = 5 THEN 'failed' ELSE 'completed' END,"
        " finished_at = clock_timestamp() WHERE status = 'pending'"
    )

    result = run(api.url)

    assert result.returncode == 1
    assert "completed   59" in result.stdout


def test_accepted_order_that_is_missing_fails_the_run(api: Api, work: Callable[[str], None]) -> None:
    work("DELETE FROM orders WHERE seq = 5")
    work(COMPLETE.replace("status = 'pending'", "status = 'pending' AND seq <> 5"))

    result = run(api.url)

    assert result.returncode == 1
    assert "missing     1" in result.stdout


def test_orders_that_nobody_works_on_are_given_up(api: Api) -> None:
    submissions, _ = load.submit(api.url, 3, clients=2)

    with pytest.raises(load.LoadError, match=r"3 of 3 .* is a worker running\?"):
        load.wait_for_all(api.url, submissions.accepted, stalled_seconds=0.1)


def test_refused_orders_are_counted_with_their_reason(api: Api, connection: Connection) -> None:
    connection.execute("ALTER TABLE orders ADD CONSTRAINT closed CHECK (total_amount < 100)")

    submissions, _ = load.submit(api.url, 4, clients=2)

    assert submissions.accepted == []
    assert submissions.failures == ["500 Internal Server Error"] * 4


def test_absent_api_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    result = run(f"http://127.0.0.1:{port}")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"no API at http://127.0.0.1:{port}")


@pytest.mark.parametrize(("name", "value"), [("ORDERS", "x"), ("ORDERS", "0"), ("CLIENTS", "-1")])
def test_bad_number_is_one_clear_line(name: str, value: str) -> None:
    result = run("http://127.0.0.1:1", **{name: value})

    assert result.returncode == 1
    assert result.stderr.startswith(f"{name} is {value!r}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_percentile_is_a_value_that_occurred(share: float, expected: int) -> None:
    assert load.percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_percentile_of_one_or_no_value() -> None:
    assert load.percentile([7.0], 0.99) == 7.0
    assert load.percentile([], 0.5) == 0.0
