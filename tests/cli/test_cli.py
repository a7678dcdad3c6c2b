import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from schema.runtime.connection import REPLY_SECONDS, Connection

Orders = Callable[..., subprocess.CompletedProcess[str]]


def orders(*arguments: str, url: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    if url is not None:
        environment["DATABASE_URL"] = url
    return subprocess.run(
        [sys.executable, "-c", "import sys; from schema.cli.main import main; sys.exit(main())", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_migrate_creates_the_tables_and_may_be_repeated(empty_database_url: str) -> None:
    first = orders("migrate", url=empty_database_url)
    second = orders("migrate", url=empty_database_url)

    assert (first.returncode, second.returncode) == (0, 0)
    assert "revision 0005" in second.stdout


@pytest.mark.parametrize("command", ["pause", "resume", "recount", "verify-fcfs"])
def test_a_command_on_an_empty_database_names_the_remedy(empty_database_url: str, command: str) -> None:
    done = orders(command, url=empty_database_url)

    assert done.returncode == 1
    assert "orders migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_pause_stands_until_resume(database_url: str, connection: Connection) -> None:
    orders("pause", url=database_url)
    paused = connection.execute("SELECT paused_at IS NOT NULL FROM queue").fetchone()
    orders("resume", url=database_url)
    resumed = connection.execute("SELECT paused_at IS NOT NULL FROM queue").fetchone()

    assert (paused, resumed) == ((True,), (False,))


def test_recount_makes_the_tally_anew(database_url: str, connection: Connection) -> None:
    connection.execute("UPDATE tally SET pending = 100")

    done = orders("recount", url=database_url)

    assert (done.returncode, done.stderr) == (0, "")
    assert connection.execute("SELECT pending FROM tally").fetchall() == [(0,)]


SERVED = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount, seq, status, attempt, queued_at, started_at,
                    finished_at)
SELECT gen_random_uuid(), 'ada', '{tea}', 1, ticket, 'completed', 1, '2026-01-01',
       TIMESTAMPTZ '2026-01-01' + waited, '2026-01-02'
FROM (VALUES (1, INTERVAL '%s'), (2, INTERVAL '5 s')) AS orders (ticket, waited)
RETURNING order_id
"""


def test_verify_fcfs_of_orders_served_in_turn_says_so_and_succeeds(
    database_url: str, connection: Connection
) -> None:
    connection.execute(SERVED % "4 s")

    done = orders("verify-fcfs", url=database_url)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "claims 2 of 2 orders: no inversion, no double start\n"


def test_verify_fcfs_names_the_orders_that_it_found_out_of_turn_and_fails(
    database_url: str, connection: Connection
) -> None:
    (first,), (second,) = connection.execute(SERVED % "6 s").fetchall()

    done = orders("verify-fcfs", url=database_url)

    assert done.returncode == 1
    summary, finding, *_ = done.stdout.splitlines()
    assert summary == "claims 2 of 2 orders: 1 inversion, no double start"
    assert f"order {first} (ticket 1," in finding
    assert f"order {second} (ticket 2," in finding


@pytest.mark.slow
def test_verify_fcfs_has_more_patience_than_a_worker(
    database_url: str, connect: Callable[[], Connection], wait_until: Callable[..., Any]
) -> None:
    psql, looker = connect(), connect()
    psql.execute("BEGIN")
    psql.execute("LOCK TABLE attempts")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(orders, "verify-fcfs", url=database_url)
        waited = """
            SELECT FROM pg_stat_activity
            WHERE datname = current_database()
              AND wait_event_type = 'Lock'
              AND query_start < clock_timestamp() - make_interval(secs => %s)
        """
        wait_until(lambda: looker.execute(waited, [REPLY_SECONDS + 2]).rowcount)
        psql.execute("COMMIT")

        assert running.result().returncode == 0


def test_a_malformed_url_is_named_without_its_password() -> None:
    done = orders("pause", url="postgresql://me:hunter2@host:port:port/x")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "DATABASE_URL" in done.stderr
    assert "hunter2" not in done.stderr


def test_an_unknown_command_is_bad_usage() -> None:
    done = orders("refresh", url=None)

    assert done.returncode == 2
    assert "migrate" in done.stderr


def test_with_a_url_nothing_of_the_embedded_server_is_imported(database_url: str) -> None:
    program = (
        "import sys; from schema.cli.main import main; main(['pause']); "
        "import orders_api.__main__, orders_worker.__main__; "
        "sys.exit(any('embedded.server' in name or 'pgserver' in name for name in sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "DATABASE_URL": database_url})

    assert done.returncode == 0
