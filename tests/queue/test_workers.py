from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from schema.queue import workers
from schema.runtime.connection import Connection
from tests.rows import Queue


def register(queue: Queue, **named: Any) -> workers.Registration:
    named = {"host": "box", "pid": 1, "slots": 4, "lease_seconds": 10, **named}
    named = {"handler": "shop:work", "version": "1.2.3", **named}
    return workers.register(queue.connection, **named)


def test_every_start_has_an_id_of_its_own(queue: Queue) -> None:
    ids = {register(queue).worker_id for _ in range(20)}

    assert len(ids) == 20


def test_registration_describes_the_process_and_dates_its_first_claim(queue: Queue) -> None:
    before = queue.now()

    registration = register(queue, host="h" * 300, pid=77, slots=3, lease_seconds=2.5)

    row = queue.worker_row(registration.worker_id)
    assert (row.host, row.pid, row.slots, row.lease_seconds) == ("h" * 300, 77, 3, 2.5)
    assert (row.handler, row.version) == ("shop:work", "1.2.3")
    assert before <= registration.at == row.oldest_claim_at <= queue.now()
    assert (row.dead_at, row.session_key) == (None, None)


def test_handler_of_any_length_is_registered_by_what_a_row_has_room_for(queue: Queue) -> None:
    registration = register(queue, handler=f"shop.{'é' * 5000}:work")

    assert queue.worker_row(registration.worker_id).handler == f"shop.{'é' * 250}"


def test_beat_renews_the_lease_and_forgets_a_lost_session(queue: Queue) -> None:
    queue.worker(heartbeat_at="2001-01-01", session_lost_at="2001-01-01")
    before = queue.now()

    assert workers.beat(queue.connection, "w", held=[], oldest_claim_at=before).alive

    row = queue.worker_row("w")
    assert before <= row.heartbeat_at <= queue.now()
    assert row.session_lost_at is None


def test_beat_of_a_dead_worker_says_so_and_revives_nothing(queue: Queue) -> None:
    queue.worker(dead_at="now", heartbeat_at="2001-01-01", session_lost_at="2001-01-01")
    before = queue.worker_row("w")

    assert not workers.beat(queue.connection, "w", held=[], oldest_claim_at=queue.now()).alive
    assert queue.worker_row("w") == before


def test_beat_of_an_unknown_worker_says_that_it_is_dead(queue: Queue) -> None:
    assert not workers.beat(queue.connection, "w", held=[], oldest_claim_at=queue.now()).alive


def test_oldest_claim_never_goes_back(queue: Queue) -> None:
    now = queue.now()
    queue.worker(oldest_claim_at=now)

    for moment in (now - timedelta(hours=1), now + timedelta(seconds=1), now):
        workers.beat(queue.connection, "w", held=[], oldest_claim_at=moment)

    assert queue.worker_row("w").oldest_claim_at == now + timedelta(seconds=1)


def test_beat_names_the_held_orders_whose_cancel_was_asked_for(queue: Queue) -> None:
    queue.worker()
    asked = queue.insert("processing", cancel_requested_at="now")
    unasked = queue.insert("processing")
    another_s = queue.insert("processing", cancel_requested_at="now", worker_id="v")
    not_held = queue.insert("processing", cancel_requested_at="now")

    beat = workers.beat(queue.connection, "w", held=[asked, unasked, another_s], oldest_claim_at=queue.now())

    assert beat.cancel_requested == {asked}
    assert not_held not in beat.cancel_requested


@pytest.mark.direct("session locks")
def test_session_is_held_by_one_connection_at_a_time(
    queue: Queue, connect: Callable[[], Connection], wait_until: Callable[..., Any]
) -> None:
    queue.worker(session_lost_at="2001-01-01")
    first, second = connect(), connect()

    assert workers.hold_session(first, "w")
    assert queue.worker_row("w").session_key is not None
    assert queue.worker_row("w").session_lost_at is None
    assert not workers.hold_session(second, "w")
    first.close()
    wait_until(lambda: workers.hold_session(second, "w"))


@pytest.mark.direct("session locks")
def test_unknown_worker_holds_no_session(queue: Queue) -> None:
    assert not workers.hold_session(queue.connection, "nobody")
    assert queue.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'" + HERE) == 0


HERE = " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"


def test_worker_leaves_once_and_stays_dead(queue: Queue) -> None:
    queue.worker()

    workers.leave(queue.connection, "w")
    left = queue.worker_row("w").dead_at
    workers.leave(queue.connection, "w")

    assert left is not None
    assert queue.worker_row("w").dead_at == left


def test_only_workers_that_have_been_swept_for_a_day_are_pruned(queue: Queue) -> None:
    queue.worker("living")
    queue.worker("dead", dead_at="2001-01-01")
    queue.worker("swept", dead_at="2001-01-01", swept_at="now")
    queue.worker("old", dead_at="2001-01-01", swept_at="2001-01-01")

    assert workers.prune(queue.connection) == 1
    assert queue.value("SELECT array_agg(worker_id ORDER BY worker_id) FROM workers") == [
        "dead",
        "living",
        "swept",
    ]


def test_prune_is_bounded_and_passes_locked_rows(queue: Queue, connect: Callable[[], Connection]) -> None:
    for number in range(102):
        queue.worker(f"w{number}", dead_at="2001-01-01", swept_at="2001-01-01")
    psql = connect()
    psql.execute("BEGIN")
    psql.execute("SELECT FROM workers WHERE worker_id = 'w0' FOR UPDATE")

    assert workers.prune(queue.connection) == 100
    assert workers.prune(queue.connection) == 1


def test_beat_waits_for_nobody_who_has_its_row_locked(
    queue: Queue, connect: Callable[[], Connection]
) -> None:
    queue.worker(heartbeat_at="2001-01-01")
    with connect() as other, other.transaction():
        other.execute("SELECT FROM workers FOR UPDATE")

        beat = workers.beat(queue.connection, "w", held=[], oldest_claim_at=queue.now())

    assert (beat.alive, beat.renewed) == (True, False)
