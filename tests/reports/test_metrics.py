from datetime import UTC, datetime, timedelta

import pytest

from schema.queue import pause
from schema.reports import metrics
from schema.reports.metrics import LiveHandler, Percentiles
from schema.states import Status
from tests.rows import Queue


def test_original_s_sample_takes_3976_seconds(queue: Queue) -> None:
    queue.worker("w", slots=1)
    queue.connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount)"
        " SELECT gen_random_uuid(), 'ada', '{tea}', 1 FROM generate_series(1, 1987)"
    )
    queue.insert("processing")
    start = "2026-01-01 00:00:00Z"
    queue.insert("completed", created_at=start, started_at=start, finished_at="2026-01-01 00:00:02Z")

    read = metrics.read(queue.connection, simulated_seconds=99)

    assert read.counts[Status.PENDING] == 1987
    assert read.counts[Status.PROCESSING] == 1
    assert read.estimated_processing_time == 3976
    assert read.average_processing_time == 2


def test_every_state_is_counted_also_with_no_order_in_it(queue: Queue) -> None:
    empty = metrics.read(queue.connection, simulated_seconds=2)
    for status in Status:
        queue.insert(status)
    full = metrics.read(queue.connection, simulated_seconds=2)

    assert empty.counts == dict.fromkeys(Status, 0)
    assert full.counts == dict.fromkeys(Status, 1)
    assert (empty.average_processing_time, empty.estimated_processing_time) == (0, 0)


def test_counts_follow_edits_made_by_hand(queue: Queue) -> None:
    order_id = queue.insert()
    queue.change(order_id, "status = 'cancelled', finished_at = clock_timestamp()")

    assert metrics.read(queue.connection, simulated_seconds=2).counts[Status.CANCELLED] == 1
    queue.connection.execute("DELETE FROM orders")
    assert sum(metrics.read(queue.connection, simulated_seconds=2).counts.values()) == 0


@pytest.mark.parametrize(("seconds", "average"), [("1.499999", 1), ("1.5", 2), ("2.5", 3), ("0.4", 0)])
def test_average_is_rounded_half_up(queue: Queue, seconds: str, average: int) -> None:
    finished = queue.value(f"SELECT TIMESTAMPTZ '2026-01-01' + INTERVAL '{seconds} seconds'")
    queue.insert("completed", created_at="2026-01-01", started_at="2026-01-01", finished_at=finished)

    assert metrics.read(queue.connection, simulated_seconds=2).average_processing_time == average


@pytest.mark.parametrize(("simulated", "estimate"), [(2, 4), (0.25, 1), (0.2, 0), (0, 0), (1e-05, 0)])
def test_with_nothing_completed_an_order_takes_the_simulated_time(
    queue: Queue, simulated: float, estimate: int
) -> None:
    queue.line(2)

    assert metrics.read(queue.connection, simulated_seconds=simulated).estimated_processing_time == estimate


def test_estimate_takes_the_time_in_a_slot_and_not_the_time_in_line(queue: Queue) -> None:
    queue.insert(
        "completed",
        created_at="2026-01-01 00:00:00Z",
        started_at="2026-01-01 01:00:00Z",
        finished_at="2026-01-01 01:00:03Z",
    )
    queue.line(4)

    read = metrics.read(queue.connection, simulated_seconds=2)

    assert (read.average_processing_time, read.estimated_processing_time) == (3603, 12)


def test_estimate_follows_a_change_of_pace(queue: Queue) -> None:
    # A long history of a second each, and a hundred of late that took a minute.
    queue.connection.execute("""
        INSERT INTO orders (order_id, user_id, item_ids, total_amount, status, attempt, attempt_limit,
                            worker_id, created_at, started_at, finished_at)
        SELECT gen_random_uuid(), 'ada', '{tea}', 1, 'completed', 1, 5, 'w', at, at,
               at + make_interval(secs => CASE WHEN number > 1900 THEN 60 ELSE 1 END)
        FROM generate_series(1, 2000) AS number,
             LATERAL (SELECT TIMESTAMPTZ '2026-01-01' + make_interval(secs => number) AS at) AS start
    """)
    # What is in a slot now says nothing yet.
    for _ in range(150):
        queue.insert("processing")

    assert metrics.read(queue.connection, simulated_seconds=2).estimated_processing_time == 150 * 60


def test_only_the_slots_of_living_workers_count(queue: Queue) -> None:
    queue.line(12)
    queue.worker("one", slots=2)
    queue.worker("two", slots=1)
    queue.worker("dead", slots=100, dead_at="now")
    queue.worker("lapsed", slots=100, lease_seconds=10, heartbeat_at="2001-01-01")

    read = metrics.read(queue.connection, simulated_seconds=2)

    assert (read.live_workers, read.live_slots) == (2, 3)
    assert read.estimated_processing_time == 8


def test_living_workers_are_counted_by_what_they_run(queue: Queue) -> None:
    queue.worker("new", slots=4, handler="shop:work", version="2.0")
    for name in ("one", "two"):
        queue.worker(name, slots=3, handler="shop:work", version="1.0")
    queue.worker("trial", handler="simulated", version="2.0")
    queue.worker("of a release before", slots=8)
    queue.worker("dead", handler="shop:old", version="0.9", dead_at="now")
    queue.worker("lapsed", handler="shop:old", version="0.9", lease_seconds=10, heartbeat_at="2001-01-01")

    read = metrics.read(queue.connection, simulated_seconds=2)

    assert read.live_handlers == [
        LiveHandler("shop:work", "1.0", workers=2, slots=6),
        LiveHandler("shop:work", "2.0", workers=1, slots=4),
        LiveHandler("simulated", "2.0", workers=1, slots=1),
        LiveHandler(None, None, workers=1, slots=8),
    ]
    assert (read.live_workers, read.live_slots) == (5, 19)


@pytest.mark.parametrize("slots", [None, 0])
def test_without_any_slot_one_is_assumed(queue: Queue, slots: int | None) -> None:
    queue.line(3)
    if slots is not None:
        queue.worker(slots=slots)

    assert metrics.read(queue.connection, simulated_seconds=2).estimated_processing_time == 6


def test_completed_orders_without_a_start_are_left_out_of_the_time_in_a_slot(queue: Queue) -> None:
    queue.insert("completed", started_at=None, worker_id=None)
    queue.line(3)

    assert metrics.read(queue.connection, simulated_seconds=2).estimated_processing_time == 6


def test_retrying_orders_are_no_part_of_the_estimate(queue: Queue) -> None:
    queue.insert("retrying")

    assert metrics.read(queue.connection, simulated_seconds=2).estimated_processing_time == 0


def test_pause_is_shown(queue: Queue) -> None:
    assert not metrics.read(queue.connection, simulated_seconds=2).paused
    pause.pause(queue.connection)
    assert metrics.read(queue.connection, simulated_seconds=2).paused
    queue.worker()
    assert metrics.read(queue.connection, simulated_seconds=2).paused
    queue.connection.execute("DELETE FROM queue")
    assert not metrics.read(queue.connection, simulated_seconds=2).paused


def test_percentiles_are_of_the_orders_claimed_last(queue: Queue) -> None:
    empty = metrics.read(queue.connection, simulated_seconds=2)
    queued_at = datetime(2026, 1, 1, tzinfo=UTC)
    for seconds in range(1, 101):
        queue.insert(
            "completed",
            queued_at=queued_at,
            started_at=queued_at + timedelta(seconds=seconds),
            finished_at=queued_at + timedelta(seconds=3 * seconds),
        )
    queue.insert("processing", queued_at="2025-01-01", started_at="2025-01-02")

    read = metrics.read(queue.connection, simulated_seconds=2)

    assert (empty.wait, empty.processing) == (Percentiles(None, None, None), Percentiles(None, None, None))
    assert read.wait == Percentiles(51, 96, 100)
    assert read.processing == Percentiles(100, 190, 198)


def test_percentiles_are_of_a_sample(queue: Queue) -> None:
    queue.connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount,"
        " status, queued_at, started_at, finished_at)"
        " SELECT gen_random_uuid(), 'ada', '{tea}', 1,"
        " 'completed', at, at + make_interval(secs => n), at + '1 h'"
        " FROM (SELECT n, TIMESTAMPTZ '2026-01-01' + make_interval(hours => n) AS at"
        "       FROM generate_series(1, 1500) AS n) AS times"
    )

    assert metrics.read(queue.connection, simulated_seconds=2).wait.p50 == 1000


def test_age_of_the_oldest_is_that_of_the_first_in_line(queue: Queue) -> None:
    queue.insert("retrying", queued_at="2001-01-01")
    assert metrics.read(queue.connection, simulated_seconds=2).oldest_pending_seconds is None
    for minutes in (5, 10):
        queue.insert(queued_at=queue.value(f"SELECT clock_timestamp() - INTERVAL '{minutes} min'"))

    assert metrics.read(queue.connection, simulated_seconds=2).oldest_pending_seconds in range(299, 330)
