import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from schema.order import Claim, Fence
from schema.queue import rescue, workers
from schema.runtime.connection import Connection
from schema.states import Outcome, Status
from tests.rows import Queue

WATCHED = float("inf")


def declare(queue: Queue, watched_seconds: float = WATCHED) -> list[str]:
    return rescue.declare_dead(queue.connection, watched_seconds=watched_seconds).dead


def silent_since(queue: Queue, interval: str) -> datetime:
    moment = queue.value(f"SELECT clock_timestamp() - INTERVAL '{interval}'")
    assert isinstance(moment, datetime)
    return moment


@pytest.fixture
def watched(queue: Queue, wait_until: Callable[..., Any]) -> None:
    """Wait until the server has been up for longer than the lease that these tests use."""
    up = "SELECT EXTRACT(epoch FROM clock_timestamp() - pg_postmaster_start_time())"
    wait_until(lambda: queue.value(up) > LEASE)


LEASE = 1.0


@pytest.mark.usefixtures("watched")
def test_worker_whose_lease_is_over_is_dead_for_good(queue: Queue) -> None:
    queue.worker("silent", lease_seconds=LEASE, heartbeat_at=silent_since(queue, "2 seconds"))
    queue.worker("beating", lease_seconds=LEASE)

    assert declare(queue) == ["silent"]
    died = queue.worker_row("silent").dead_at
    assert declare(queue) == []

    assert queue.worker_row("silent").dead_at == died
    assert not workers.beat(queue.connection, "silent", held=[], oldest_claim_at=queue.now()).alive
    assert queue.worker_row("beating").dead_at is None


@pytest.mark.usefixtures("watched")
def test_caller_that_stands_still_with_its_verdict_uncommitted_is_not_waited_for(
    queue: Queue, connect: Callable[[], Connection], wait_until: Callable[..., Any]
) -> None:
    queue.worker("silent", lease_seconds=LEASE, heartbeat_at=silent_since(queue, "2 seconds"))
    stalled = connect()
    stalled.execute("BEGIN")
    assert rescue.declare_dead(stalled, watched_seconds=WATCHED).dead == ["silent"]
    assert declare(queue) == []

    wait_until(lambda: declare(queue) == ["silent"], seconds=5)
    stalled.close()


@pytest.fixture
def sessionless(queue: Queue) -> str:
    """A worker that beat just now and whose session lock is free."""
    key = queue.value("SELECT hashtextextended('w', 0)")
    return str(queue.worker("w", lease_seconds=LEASE, session_key=key))


@pytest.mark.usefixtures("watched", "sessionless")
def test_lost_session_is_only_noted_when_it_is_first_seen(queue: Queue) -> None:
    assert declare(queue) == []

    row = queue.worker_row("w")
    assert row.dead_at is None
    assert row.session_lost_at is not None


@pytest.mark.usefixtures("watched", "sessionless")
def test_who_looks_is_told_when_the_first_of_the_suspected_will_be_dead(queue: Queue) -> None:
    first = rescue.declare_dead(queue.connection, watched_seconds=WATCHED)
    queue.change_worker("w", "session_lost_at = clock_timestamp() - INTERVAL '1.5 s'")
    second = rescue.declare_dead(queue.connection, watched_seconds=WATCHED)

    assert (first.dead, second.dead) == ([], [])
    assert first.next_seconds is not None
    assert second.next_seconds is not None
    assert 1 < first.next_seconds <= 2
    assert second.next_seconds <= 0.5


@pytest.mark.usefixtures("watched", "sessionless")
def test_session_that_is_free_for_two_seconds_is_death(queue: Queue) -> None:
    declare(queue)
    queue.change_worker("w", "session_lost_at = session_lost_at - INTERVAL '1.5 seconds'")
    assert declare(queue) == []

    queue.change_worker("w", "session_lost_at = session_lost_at - INTERVAL '0.5 seconds'")
    assert declare(queue) == ["w"]


@pytest.mark.usefixtures("watched", "sessionless")
def test_beat_after_a_lost_session_starts_the_count_again(queue: Queue) -> None:
    queue.change_worker("w", "session_lost_at = clock_timestamp() - INTERVAL '3 seconds'")

    workers.beat(queue.connection, "w", held=[], oldest_claim_at=queue.now())

    assert declare(queue) == []


@pytest.mark.usefixtures("watched", "sessionless")
@pytest.mark.direct("session locks")
def test_held_session_shows_life_whatever_was_seen_before(
    queue: Queue, lives: Callable[[str], Connection]
) -> None:
    queue.change_worker("w", "session_lost_at = clock_timestamp() - INTERVAL '3 seconds'")
    lives("w")

    assert declare(queue) == []


@pytest.mark.usefixtures("watched")
@pytest.mark.direct("session locks")
@pytest.mark.parametrize("worker_id", ["w", "v", "a", "b", "c", "d", "e", "f"])
def test_session_keys_of_either_sign_are_seen_held(
    queue: Queue, connect: Callable[[], Connection], worker_id: str
) -> None:
    queue.worker(worker_id, lease_seconds=LEASE, session_lost_at="2001-01-01")
    workers.hold_session(connect(), worker_id)
    queue.change_worker(worker_id, "session_lost_at = '2001-01-01'")

    assert declare(queue) == []


@pytest.mark.usefixtures("watched", "sessionless")
@pytest.mark.direct("session locks")
def test_lock_that_is_held_in_another_database_shows_no_life(queue: Queue, server_url: str) -> None:
    queue.change_worker("w", "session_lost_at = clock_timestamp() - INTERVAL '3 seconds'")
    with Connection.open(server_url, name="elsewhere") as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(hashtextextended('w', 0))")

        assert declare(queue) == ["w"]


@pytest.mark.usefixtures("watched")
def test_worker_behind_a_pooler_is_judged_by_its_lease_alone(queue: Queue) -> None:
    queue.worker(lease_seconds=LEASE, session_lost_at="2001-01-01")

    assert declare(queue) == []


@pytest.mark.usefixtures("watched", "sessionless")
def test_nobody_is_judged_by_who_has_watched_for_less_than_a_lease(queue: Queue) -> None:
    queue.change_worker("w", "session_lost_at = '2001-01-01'")
    queue.worker("silent", lease_seconds=LEASE, heartbeat_at="2001-01-01")

    assert declare(queue, LEASE * 0.9) == []
    assert queue.worker_row("silent").dead_at is None
    assert sorted(declare(queue, LEASE * 1.1)) == ["silent", "w"]


@pytest.mark.usefixtures("watched", "sessionless")
def test_process_just_started_goes_by_the_sessions_alone(queue: Queue) -> None:
    queue.change_worker("w", "session_lost_at = '2001-01-01'")
    queue.worker("silent", lease_seconds=LEASE, heartbeat_at="2001-01-01")

    dead = rescue.declare_dead(queue.connection, watched_seconds=math.inf, running_seconds=LEASE * 0.9).dead

    assert dead == ["w"]


def test_nobody_is_judged_on_a_server_that_has_been_up_for_less_than_a_lease(queue: Queue) -> None:
    up = queue.value("SELECT EXTRACT(epoch FROM clock_timestamp() - pg_postmaster_start_time())")
    if up > 80_000:
        pytest.skip("the longest lease is a day, and this server has been up for nearly as long")
    queue.worker(lease_seconds=86_400, heartbeat_at="2001-01-01")

    assert declare(queue) == []


@pytest.mark.usefixtures("watched")
def test_worker_whose_row_is_locked_is_passed_over(queue: Queue, connect: Callable[[], Connection]) -> None:
    queue.worker("locked", lease_seconds=LEASE, heartbeat_at="2001-01-01")
    queue.worker("silent", lease_seconds=LEASE, heartbeat_at="2001-01-01")
    psql = connect()
    psql.execute("BEGIN")
    psql.execute("SELECT FROM workers WHERE worker_id = 'locked' FOR UPDATE")

    assert declare(queue) == ["silent"]
    psql.execute("ROLLBACK")
    assert declare(queue) == ["locked"]


@pytest.fixture
def claims(queue: Queue) -> list[Claim]:
    """Three orders of a worker that has died since."""
    queue.worker(oldest_claim_at=queue.now())
    queue.line(3)
    claimed: list[Claim] = queue.claim(free=3)
    queue.change_worker("w", "dead_at = clock_timestamp()")
    return claimed


def test_sweep_returns_the_orders_of_the_dead_to_their_places(queue: Queue, claims: list[Claim]) -> None:
    before = [queue.row(claim.order_id) for claim in claims]

    assert len(rescue.sweep(queue.connection)) == 3

    for old, claim in zip(before, claims, strict=True):
        row = queue.row(claim.order_id)
        assert (row.status, row.seq, row.attempt, row.attempt_limit) == ("pending", old.seq, 1, 5)
        assert row.queued_at > claim.started_at
        assert row.last_error == "worker w died"
        (attempt,) = queue.attempts(claim.order_id)
        assert (attempt.outcome, attempt.worker_id, attempt.error) == ("rescued", "w", "worker w died")
        assert attempt.started_at == claim.started_at
        assert (attempt.seq, attempt.queued_at) == (claim.seq, old.queued_at)


def test_sweep_fails_what_has_no_attempt_left_and_cancels_what_was_asked_to_be(
    queue: Queue, claims: list[Claim]
) -> None:
    spent, asked, other = (claim.order_id for claim in claims)
    queue.change(spent, "attempt_limit = 1")
    queue.change(asked, "cancel_requested_at = clock_timestamp()")

    rescue.sweep(queue.connection)

    assert [queue.status(order_id) for order_id in (spent, asked, other)] == [
        Status.FAILED,
        Status.CANCELLED,
        Status.PENDING,
    ]


def test_order_that_kills_its_worker_each_time_ends_failed(queue: Queue) -> None:
    order_id = queue.insert()

    for life in range(3):
        queue.worker(f"life{life}")
        assert len(queue.exchange(f"life{life}", free=1, max_attempts=3).claimed) == 1
        queue.change_worker(f"life{life}", "dead_at = clock_timestamp()")
        rescue.sweep(queue.connection)

    assert queue.status(order_id) is Status.FAILED
    assert [attempt.outcome for attempt in queue.attempts(order_id)] == [Outcome.RESCUED] * 3


def test_sweep_leaves_the_orders_of_the_living_alone(queue: Queue, claims: list[Claim]) -> None:
    queue.worker("living")
    queue.insert()
    (claim,) = queue.claim("living")

    assert len(rescue.sweep(queue.connection)) == len(claims)
    assert queue.status(claim.order_id) is Status.PROCESSING


def test_late_result_of_a_rescued_claim_is_lost(queue: Queue, claims: list[Claim]) -> None:
    rescue.sweep(queue.connection)
    queue.worker("next")
    again = queue.claim("next", free=3)

    late = queue.exchange(finished=[claim.fence for claim in claims])

    assert late.lost == {claim.fence for claim in claims}
    assert [claim.attempt for claim in again] == [2, 2, 2]
    assert queue.exchange("next", finished=[claim.fence for claim in again]).lost == set()


def test_sweep_passes_a_locked_order_and_gets_it_later(
    queue: Queue, claims: list[Claim], lock: Callable[..., Connection]
) -> None:
    psql = lock(claims[0].order_id)

    assert len(rescue.sweep(queue.connection)) == 2
    psql.execute("ROLLBACK")
    assert len(rescue.sweep(queue.connection)) == 1


def test_one_sweep_is_bounded(queue: Queue) -> None:
    queue.worker(oldest_claim_at="2001-01-01", dead_at="now")
    queue.connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount, status, worker_id, started_at)"
        " SELECT gen_random_uuid(), 'ada', '{tea}', 1, 'processing', 'w', '2001-01-02'"
        " FROM generate_series(1, %s)",
        (rescue.LIMIT + 5,),
    )

    assert len(rescue.sweep(queue.connection)) == rescue.LIMIT
    assert len(rescue.sweep(queue.connection)) == 5


def test_a_hundred_dead_workers_keep_no_other_one_s_orders_waiting(queue: Queue) -> None:
    for number in range(120):
        queue.worker(f"w{number:03}", dead_at="2026-01-01", oldest_claim_at="2001-01-01")
    queue.worker("last", dead_at="2026-01-02", oldest_claim_at="2001-01-01")
    queue.insert("processing", worker_id="last", started_at="2001-01-02")

    assert len(rescue.sweep(queue.connection)) == 1


def test_claim_that_a_dying_worker_commits_late_is_swept_too(
    queue: Queue, connect: Callable[[], Connection]
) -> None:
    queue.worker(oldest_claim_at=queue.now(), lease_seconds=10)
    queue.line(1)
    dying = connect()
    dying.execute("BEGIN")
    claimed = queue.exchange(free=1, on=dying).claimed
    queue.change_worker("w", "dead_at = clock_timestamp()")

    assert len(rescue.sweep(queue.connection)) == 0
    rescue.mark_swept(queue.connection)
    dying.execute("COMMIT")

    assert len(rescue.sweep(queue.connection)) == len(claimed) == 1


def test_dead_worker_is_swept_until_two_leases_are_over(queue: Queue) -> None:
    queue.worker(lease_seconds=10, dead_at=silent_since(queue, "19 seconds"))
    rescue.mark_swept(queue.connection)
    assert queue.worker_row("w").swept_at is None

    queue.change_worker("w", "dead_at = dead_at - INTERVAL '2 seconds'")
    rescue.mark_swept(queue.connection)
    assert queue.worker_row("w").swept_at is not None


def test_dead_worker_is_not_done_with_while_it_holds_an_order(
    queue: Queue, claims: list[Claim], lock: Callable[..., Connection]
) -> None:
    queue.connection.execute("UPDATE orders SET started_at = started_at - INTERVAL '1 hour'")
    queue.change_worker(
        "w", "dead_at = dead_at - INTERVAL '1 hour', oldest_claim_at = oldest_claim_at - INTERVAL '1 hour'"
    )
    queue.change_worker("w", "lease_seconds = 10")
    lock(claims[0].order_id)

    assert len(rescue.sweep(queue.connection)) == 2
    rescue.mark_swept(queue.connection)

    assert queue.worker_row("w").swept_at is None


def test_living_worker_is_never_done_with(queue: Queue) -> None:
    queue.worker(lease_seconds=0)

    rescue.mark_swept(queue.connection)

    assert queue.worker_row("w").swept_at is None


def test_nobody_waits_for_a_dead_worker_s_row_that_somebody_has_locked(
    queue: Queue, connect: Callable[[], Connection], in_thread: Callable[..., Any]
) -> None:
    for worker_id in ("locked", "free"):
        queue.worker(worker_id, lease_seconds=1, dead_at="2001-01-01")
    psql = connect()
    psql.execute("BEGIN")
    psql.execute("SELECT FROM workers WHERE worker_id = 'locked' FOR UPDATE")

    in_thread(rescue.mark_swept, queue.connection).result(timeout=5)

    assert queue.worker_row("locked").swept_at is None
    assert queue.worker_row("free").swept_at is not None


def test_patrol_returns_orders_whose_worker_is_unknown_or_dead(queue: Queue) -> None:
    queue.worker("dead", dead_at="2001-01-01", swept_at="2001-01-01")
    ghosts = [queue.insert("processing", worker_id=name, attempt=2) for name in ("nobody", "dead")]
    before = queue.row(ghosts[0])

    patrolled = rescue.patrol(queue.connection, after=None)

    assert len(patrolled.rescued) == 2
    assert [queue.status(order_id) for order_id in ghosts] == ["pending", "pending"]
    (attempt,) = queue.attempts(ghosts[0])
    assert (attempt.outcome, attempt.error) == ("rescued", "worker nobody is unknown")
    assert (attempt.seq, attempt.queued_at) == (before.seq, before.queued_at)


def test_patrol_never_touches_the_orders_of_the_living(queue: Queue) -> None:
    queue.worker("living", lease_seconds=1, heartbeat_at="2001-01-01")
    order_id = queue.insert("processing", worker_id="living", started_at="2001-01-01")

    assert len(rescue.patrol(queue.connection, after=None).rescued) == 0
    assert queue.status(order_id) is Status.PROCESSING


def test_patrol_passes_a_locked_order(queue: Queue, lock: Callable[..., Connection]) -> None:
    lock(queue.insert("processing"))

    assert len(rescue.patrol(queue.connection, after=None).rescued) == 0


@pytest.mark.parametrize(("step", "count"), [("0", 2), ("1", 4)])
def test_patrol_goes_page_by_page_through_all_starts_also_equal_ones(
    queue: Queue, step: str, count: int
) -> None:
    ghosts = rescue.PATROL_LIMIT * 2 + 5
    queue.connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount, worker_id, started_at, status,"
        " finished_at)"
        " SELECT gen_random_uuid(), 'ada', '{tea}', 1, 'nobody',"
        " TIMESTAMPTZ '2001-01-01' + n * CAST(%s AS integer) * INTERVAL '1 second',"
        " CASE WHEN n %% 100 = 0 THEN 'processing' ELSE 'completed' END,"
        " CASE WHEN n %% 100 > 0 THEN clock_timestamp() END"
        " FROM generate_series(1, %s) AS n",
        (step, ghosts),
    )

    pages = [rescue.patrol(queue.connection, after=None)]
    while (reached := pages[-1].reached) is not None:
        pages.append(rescue.patrol(queue.connection, after=reached))

    assert len(pages) == count
    assert sum(len(page.rescued) for page in pages) == ghosts // 100


def test_patrol_leaves_an_order_that_a_living_worker_has_claimed_meanwhile(
    queue: Queue,
    connect: Callable[[], Connection],
    in_thread: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    order_id = queue.insert("processing", worker_id="nobody", attempt=1)
    queue.worker("living")
    gate, patroller = connect(), connect()
    gate.execute("BEGIN; SELECT pg_advisory_xact_lock(7)")
    # The gate stands between what the patrol has read and what it locks.
    gated = rescue.PATROL.replace(
        "WHERE orders.order_id = ANY",
        "WHERE (SELECT pg_advisory_xact_lock(7) IS NOT NULL FROM page LIMIT 1) AND orders.order_id = ANY",
        1,
    )
    assert gated != rescue.PATROL

    def patrol() -> Any:
        return patroller.execute(gated, {"after": "-infinity"}).fetchall()[:-1]

    running = in_thread(patrol)
    waiting = """
        SELECT count(*)
        FROM pg_stat_activity
        WHERE datname = current_database()
          AND wait_event = 'advisory'
    """
    wait_until(lambda: queue.value(waiting))
    queue.change(order_id, "status = 'pending', worker_id = NULL, started_at = NULL")
    (claim,) = queue.claim("living")
    gate.execute("COMMIT")

    assert running.result() == []
    assert queue.row(order_id).worker_id == "living"
    assert queue.exchange("living", finished=[Fence(order_id, claim.attempt)]).lost == set()
