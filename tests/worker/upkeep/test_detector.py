"""Looking for the dead, and what may keep it from counting."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orders_worker.upkeep.detector import STALL_SECONDS, FailureDetector
from orders_worker.upkeep.housekeeping import Housekeeping
from schema.runtime.connection import Connection


@pytest.fixture
def silent(connection: Connection) -> str:
    """A worker whose lease of a second was over long ago; the server has been up for longer than that."""
    connection.execute(
        "INSERT INTO workers (worker_id, lease_seconds, heartbeat_at) VALUES ('silent', 1, '2001-01-01')"
    )
    return "silent"


@pytest.fixture
def is_dead(connect: Callable[[], Connection], silent: str) -> Callable[[], bool]:
    observer = connect()
    statement = "SELECT dead_at IS NOT NULL FROM workers WHERE worker_id = %s"
    return lambda: observer.execute(statement, [silent]).fetchone() == (True,)


def test_look_that_comes_long_after_the_last_one_declares_nobody_dead(
    connection: Connection, is_dead: Callable[[], bool], wait_until: Callable[..., Any]
) -> None:
    now = [0.0]
    detector = FailureDetector(clock=lambda: now[0])

    now[0] = 1000.0
    assert not detector.detect(connection).counts
    now[0] += STALL_SECONDS
    assert not detector.detect(connection).counts
    now[0] += 1.0
    assert detector.detect(connection).counts
    assert not is_dead()  # it has been seen for a second only, which is no longer than its lease

    def looks() -> bool:
        now[0] += 1.0
        return detector.detect(connection).counts and is_dead()

    wait_until(looks)


@pytest.fixture
def start_housekeeping(database_url: str) -> Iterator[Callable[[], Housekeeping]]:
    started: list[Housekeeping] = []

    def start() -> Housekeeping:
        started.append(Housekeeping(database_url, on_orders=lambda: None, worker_id=lambda: "w"))
        started[-1].loop.start()
        return started[-1]

    yield start
    for each in started:
        each.loop.stop()


@pytest.mark.slow
@pytest.mark.parametrize("table", ["idempotency_keys", "alembic_version"])
def test_chore_that_waits_for_a_lock_ends_the_looking_for_the_dead_once_and_not_for_ever(
    connect: Callable[[], Connection],
    is_dead: Callable[[], bool],
    start_housekeeping: Callable[[], Housekeeping],
    wait_until: Callable[..., Any],
    table: str,
) -> None:
    locker = connect()
    locker.execute("BEGIN")
    locker.execute(f"LOCK TABLE {table}")

    housekeeping = start_housekeeping()

    wait_until(is_dead, seconds=60)
    wait_until(lambda: not housekeeping.watchdog.overdue, seconds=60)


def test_housekeeping_that_can_look_for_nobody_is_missed(
    connect: Callable[[], Connection],
    start_housekeeping: Callable[[], Housekeeping],
    wait_until: Callable[..., Any],
) -> None:
    connect().execute("ALTER TABLE workers RENAME TO workforce")

    housekeeping = start_housekeeping()

    wait_until(lambda: housekeeping.watchdog.overdue)


def test_dead_are_declared_also_when_nobody_can_tell_what_there_is_to_do(
    connection: Connection,
    start_housekeeping: Callable[[], Housekeeping],
    is_dead: Callable[[], bool],
    wait_until: Callable[..., Any],
) -> None:
    connection.execute("ALTER TABLE tally_changes RENAME TO tally_changes_of_before")

    start_housekeeping()

    wait_until(is_dead)
