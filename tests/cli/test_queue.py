import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from schema import revision
from schema.runtime.connection import REPLY_SECONDS, Connection
from tests.cli.conftest import call
from tests.rows import Queue

Orders = Callable[..., "subprocess.CompletedProcess[str]"]
Facts = Callable[..., Any]


def test_migrate_creates_the_tables_and_may_be_repeated(empty_database_url: str) -> None:
    first = call("migrate", url=empty_database_url)
    second = call("migrate", url=empty_database_url)

    assert (first.returncode, second.returncode) == (0, 0)
    assert f"revision {revision.NEEDED}" in second.stdout


@pytest.mark.parametrize("command", ["pause", "resume", "recount", "verify-fcfs"])
def test_a_command_on_an_empty_database_names_the_remedy(empty_database_url: str, command: str) -> None:
    done = call(command, url=empty_database_url)

    assert done.returncode == 1
    assert "orders migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_pause_stands_until_resume(orders: Orders, connection: Connection) -> None:
    orders("pause")
    paused = connection.execute("SELECT paused_at IS NOT NULL FROM queue").fetchone()
    orders("resume")
    resumed = connection.execute("SELECT paused_at IS NOT NULL FROM queue").fetchone()

    assert (paused, resumed) == ((True,), (False,))


def test_recount_makes_the_tally_anew(orders: Orders, connection: Connection) -> None:
    connection.execute("UPDATE tally SET pending = 100")

    done = orders("recount")

    assert done.stderr == ""
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
    orders: Orders, connection: Connection
) -> None:
    connection.execute(SERVED % "4 s")

    done = orders("verify-fcfs")

    assert done.stderr == ""
    assert done.stdout == "2 claims on 2 orders: no inversion, no double start\n"


def test_verify_fcfs_names_the_orders_that_it_found_out_of_turn_and_fails(
    orders: Orders, connection: Connection
) -> None:
    (first,), (second,) = connection.execute(SERVED % "6 s").fetchall()

    done = orders("verify-fcfs", status=1)

    summary, finding, *_ = done.stdout.splitlines()
    assert summary == "2 claims on 2 orders: 1 inversion, no double start"
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
        running = threads.submit(call, "verify-fcfs", url=database_url)
        waited = """
            SELECT FROM pg_stat_activity
            WHERE datname = current_database()
              AND wait_event_type = 'Lock'
              AND query_start < clock_timestamp() - make_interval(secs => %s)
        """
        wait_until(lambda: looker.execute(waited, [REPLY_SECONDS + 2]).rowcount)
        psql.execute("COMMIT")

        assert running.result().returncode == 0


def test_facts_come_as_one_document_each(facts: Facts, queue: Queue) -> None:
    queue.insert("failed")

    assert (facts("pause"), facts("resume")) == ({"paused": True}, {"paused": False})
    assert facts("migrate") == {"revision": revision.NEEDED}
    counts = {"pending": 0, "processing": 0, "retrying": 0, "completed": 0, "failed": 1, "cancelled": 0}
    assert facts("recount") == {"counts": counts}


def test_findings_come_as_one_document(facts: Facts, connection: Connection) -> None:
    (first,), (second,) = connection.execute(SERVED % "6 s").fetchall()

    found = facts("verify-fcfs", status=1)

    (inversion,) = found.pop("inversions")
    assert found == {
        "clean": False,
        "claims": 2,
        "orders": 2,
        "unjudged": 0,
        "passed_alone": 0,
        "double_starts": [],
        "shared_tickets": [],
    }
    assert inversion["passed"] == {
        "order_id": str(first),
        "seq": 1,
        "queued_at": "2026-01-01T00:00:00.000000Z",
        "started_at": "2026-01-01T00:00:06.000000Z",
        "runs_alone": False,
    }
    assert inversion["passer"]["order_id"] == str(second)


def test_older_release_says_of_a_newer_schema_that_it_may_go_on_with_it(orders: Orders, queue: Queue) -> None:
    (revision,) = queue.connection.one("SELECT version_num FROM alembic_version")
    queue.connection.execute("UPDATE alembic_version SET version_num = '0999'")

    said = orders("migrate").stdout

    assert said == (
        f"the schema is at revision 0999, newer than this release's {revision}, which may go on with it\n"
    )
