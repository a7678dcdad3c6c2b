import pytest

from schema.queue import redrive, tally
from tests.queue.test_tally import counted, tallied
from tests.rows import Queue


def rates(queue: Queue) -> tuple[float, float]:
    now = tally.read(queue.connection)
    return round(now.arrival_rate, 3), round(now.completion_rate, 3)


def test_rates_are_those_of_the_last_minute_at_least(queue: Queue) -> None:
    queue.worker()
    assert rates(queue) == (0, 0)
    queue.line(60)
    assert rates(queue) == (1, 0)
    tally.fold(queue.connection)
    assert rates(queue) == (1, 0)
    claims = queue.claim(free=30)
    queue.exchange("w", finished=[claim.fence for claim in claims])
    assert rates(queue) == (1, 0.5)

    queue.connection.execute("UPDATE tally_marks SET at = at - INTERVAL '100 seconds'")
    tally.fold(queue.connection)

    assert rates(queue) == pytest.approx((0.6, 0.3), abs=0.02)


def test_what_is_older_than_two_minutes_counts_for_no_rate(queue: Queue) -> None:
    queue.line(60)
    tally.fold(queue.connection)
    queue.connection.execute("UPDATE tally_marks SET at = at - INTERVAL '121 seconds'")
    assert rates(queue) == (0, 0)

    queue.line(30)
    assert rates(queue) == (0.5, 0)
    tally.fold(queue.connection)

    assert rates(queue) == (0.5, 0)
    assert queue.value("SELECT count(*) FROM tally_marks") == 1


def test_marks_stay_few(queue: Queue) -> None:
    for _ in range(20):
        queue.line(1)
        tally.fold(queue.connection)

    assert queue.value("SELECT count(*) FROM tally_marks") == 1


def test_redriven_order_is_no_arrival(queue: Queue) -> None:
    order_id = queue.insert("failed")
    tally.fold(queue.connection)
    redrive.redrive(queue.connection, order_id, attempts=1)

    assert rates(queue) == (round(1 / 60, 3), 0)
    assert tallied(queue.connection) == counted(queue.connection)
