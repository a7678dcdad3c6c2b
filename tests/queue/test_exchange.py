from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from schema.order import Fence
from schema.queue import completion, pause, redrive
from schema.queue.exchange import recover_claims
from schema.runtime.connection import Connection
from schema.states import Outcome, Status
from tests.rows import Queue


@pytest.fixture(autouse=True)
def workers(queue: Queue) -> None:
    queue.worker("w")
    queue.worker("v")


def test_orders_are_claimed_by_ticket_and_not_by_time_or_key(queue: Queue) -> None:
    last = queue.insert(seq=30, created_at="2001-01-01", queued_at="2001-01-01")
    first = queue.insert(seq=10)
    second = queue.insert(seq=20, created_at="2002-01-01")

    claimed = queue.claim(free=10)

    assert [claim.order_id for claim in claimed] == [first, second, last]


def test_claims_at_most_as_many_as_are_free(queue: Queue) -> None:
    orders = queue.line(5)

    claimed = [[claim.order_id for claim in queue.claim(free=free)] for free in (0, 1, 3, 5)]

    assert claimed == [[], orders[:1], orders[1:4], orders[4:]]


def test_claim_carries_the_whole_order_and_its_first_attempt(queue: Queue) -> None:
    order_id = queue.insert(item_ids=["a,b", '"', "\N{ROCKET}"], total_amount="250.75", seq=7)

    (claim,) = queue.exchange(free=1, max_attempts=3).claimed

    row = queue.row(order_id)
    assert (claim.order_id, claim.seq, claim.user_id) == (order_id, 7, "ada")
    assert claim.item_ids == ["a,b", '"', "\N{ROCKET}"]
    assert str(claim.total_amount) == "250.75"
    assert (claim.attempt, claim.attempt_limit) == (1, 3)
    assert (claim.created_at, claim.started_at) == (row.created_at, row.started_at)
    assert (row.status, row.worker_id, row.attempt) == ("processing", "w", 1)


def test_attempt_limit_is_set_by_the_first_claim_only(queue: Queue) -> None:
    order_id = queue.insert()
    (first,) = queue.exchange(free=1, max_attempts=3).claimed
    queue.end(first.fence, outcome=Outcome.RAISED)
    queue.change(order_id, "status = 'pending', retry_at = NULL")

    (second,) = queue.exchange(free=1, max_attempts=9).claimed

    assert (second.attempt, second.attempt_limit) == (2, 3)


def test_limit_of_an_order_that_came_without_one_counts_from_its_attempt(queue: Queue) -> None:
    queue.insert(attempt=3)

    (claim,) = queue.exchange(free=1, max_attempts=5).claimed

    assert (claim.attempt, claim.attempt_limit) == (4, 8)


def test_one_exchange_completes_and_claims(queue: Queue) -> None:
    first, second = queue.line(2)
    (held,) = queue.claim()

    exchanged = queue.exchange(finished=[held.fence], free=1)

    assert [claim.order_id for claim in exchanged.claimed] == [second]
    assert (exchanged.busy, exchanged.lost) == (set(), set())
    row = queue.row(first)
    assert (row.status, row.worker_id, row.started_at) == ("completed", "w", held.started_at)
    assert row.finished_at >= row.started_at


def test_an_order_is_not_claimed_by_the_exchange_that_completes_it(queue: Queue) -> None:
    queue.line(1)
    (held,) = queue.claim()

    assert queue.exchange(finished=[held.fence], free=10).claimed == []


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PROCESSING])
def test_claim_of_an_order_that_is_not_being_worked_on_is_lost(queue: Queue, status: Status) -> None:
    shape: dict[str, Any] = {"attempt": 1, "attempt_limit": 5}
    if status in ("failed", "cancelled"):
        shape |= {"worker_id": "w", "started_at": "now"}
    if status is Status.COMPLETED:
        shape |= {"worker_id": "v"}
    order_id = queue.insert(status, **shape)
    before = queue.snapshot()

    exchanged = queue.exchange(finished=[Fence(order_id, 1)])

    assert exchanged.lost == {Fence(order_id, 1)}
    assert exchanged.busy == set()
    assert queue.snapshot() == before


@pytest.mark.parametrize(("worker_id", "attempt"), [("v", 2), ("w", 1), ("w", 3)])
def test_late_result_of_another_worker_or_attempt_changes_nothing(
    queue: Queue, worker_id: str, attempt: int
) -> None:
    order_id = queue.insert("processing", attempt=2)
    before = queue.snapshot()

    exchanged = queue.exchange(worker_id, finished=[Fence(order_id, attempt)])

    assert exchanged.lost == {Fence(order_id, attempt)}
    assert queue.snapshot() == before


def test_earlier_attempt_at_an_order_is_lost_beside_the_present_one(queue: Queue) -> None:
    queue.insert()
    (earlier,) = queue.claim()
    queue.end(earlier.fence, outcome=Outcome.RELEASED)
    (present,) = queue.claim()

    exchanged = queue.exchange(finished=[earlier.fence, present.fence])

    assert exchanged.lost == {earlier.fence}
    assert queue.status(present.order_id) is Status.COMPLETED


def test_unknown_order_is_lost(queue: Queue) -> None:
    fence = Fence(queue.insert(), 1)
    queue.connection.execute("DELETE FROM orders")

    assert queue.exchange(finished=[fence]).lost == {fence}


def test_completion_that_is_committed_already_counts_as_done(queue: Queue) -> None:
    queue.line(1)
    (held,) = queue.claim()
    completion.complete(queue.connection, "w", fence=held.fence)
    before = queue.snapshot()

    exchanged = queue.exchange(finished=[held.fence, held.fence])

    assert (exchanged.busy, exchanged.lost) == (set(), set())
    assert queue.snapshot() == before


def test_locked_order_is_busy_while_the_others_are_written_at_once(
    queue: Queue, lock: Callable[..., Connection]
) -> None:
    queue.line(3)
    first, second, third = (claim.fence for claim in queue.claim(free=3))
    psql = lock(second.order_id)

    exchanged = queue.exchange(finished=[first, second, third])

    assert psql.info.transaction_status.name == "INTRANS"
    assert exchanged.busy == {second}
    assert exchanged.lost == set()
    assert [queue.status(fence.order_id) for fence in (first, second, third)] == [
        "completed",
        "processing",
        "completed",
    ]
    psql.execute("ROLLBACK")
    assert queue.exchange(finished=[second]).busy == set()
    assert queue.status(second.order_id) is Status.COMPLETED


def test_locked_order_in_line_is_passed_over_and_claimed_later(
    queue: Queue, lock: Callable[..., Connection]
) -> None:
    orders = queue.line(3)
    psql = lock(orders[0])

    passed = queue.claim(free=2)
    psql.execute("ROLLBACK")

    assert [claim.order_id for claim in passed] == orders[1:]
    assert [claim.order_id for claim in queue.claim()] == orders[:1]


def test_child_row_in_an_open_transaction_makes_no_order_busy_or_unclaimable(
    queue: Queue, connect: Callable[[], Connection]
) -> None:
    queue.connection.execute("CREATE TABLE invoices (order_id uuid REFERENCES orders)")
    held, waiting = queue.line(2)
    (claim,) = queue.claim()
    accountant = connect()
    accountant.execute("BEGIN")
    accountant.execute("INSERT INTO invoices VALUES (%s), (%s)", (held, waiting))

    exchanged = queue.exchange(finished=[claim.fence], free=1)

    assert exchanged.busy == set()
    assert [claim.order_id for claim in exchanged.claimed] == [waiting]
    assert queue.status(held) is Status.COMPLETED
    accountant.execute("COMMIT")


def test_dead_worker_claims_nothing_but_completes_what_is_still_its_own(queue: Queue) -> None:
    first, second = queue.line(2)
    (held,) = queue.claim()
    queue.change_worker("w", "dead_at = clock_timestamp()")

    exchanged = queue.exchange(finished=[held.fence], free=1)

    assert not exchanged.alive
    assert exchanged.claimed == []
    assert (queue.status(first), queue.status(second)) == ("completed", "pending")


def test_worker_without_a_row_claims_nothing(queue: Queue) -> None:
    queue.line(1)

    exchanged = queue.exchange("stranger", free=1)

    assert not exchanged.alive
    assert exchanged.claimed == []


def test_paused_queue_is_not_claimed_from_and_finished_orders_are_written(queue: Queue) -> None:
    first, second = queue.line(2)
    (held,) = queue.claim()
    pause.pause(queue.connection)

    paused = queue.exchange(finished=[held.fence], free=1)
    pause.resume(queue.connection)
    resumed = queue.exchange(free=1)

    assert (paused.paused, paused.alive, paused.claimed) == (True, True, [])
    assert queue.status(first) is Status.COMPLETED
    assert not resumed.paused
    assert [claim.order_id for claim in resumed.claimed] == [second]


def test_queue_without_its_switch_is_claimed_from(queue: Queue) -> None:
    queue.connection.execute("DELETE FROM queue")
    queue.line(1)

    assert len(queue.claim()) == 1


def test_floor_hides_older_fresh_orders_but_none_that_came_back(queue: Queue) -> None:
    queue.insert(seq=1)
    returned = queue.insert(seq=2, attempt=1, attempt_limit=5)
    at_floor = queue.insert(seq=10)

    claimed = queue.exchange(free=10, floor=10).claimed

    assert [claim.order_id for claim in claimed] == [returned, at_floor]


def test_returned_and_fresh_orders_are_merged_by_ticket(queue: Queue) -> None:
    fresh = [queue.insert(seq=seq) for seq in (2, 4, 6)]
    returned = [queue.insert(seq=seq, attempt=1, attempt_limit=5) for seq in (1, 3, 5)]

    first = queue.exchange(free=4).claimed
    second = queue.exchange(free=4, floor=5).claimed

    assert [claim.order_id for claim in first] == [returned[0], fresh[0], returned[1], fresh[1]]
    assert [claim.order_id for claim in second] == [returned[2], fresh[2]]


def test_returned_orders_below_the_floor_fill_no_more_than_is_free(queue: Queue) -> None:
    for seq in range(1, 5):
        queue.insert(seq=seq, attempt=1, attempt_limit=5)
    queue.insert(seq=10)

    assert [claim.seq for claim in queue.exchange(free=3, floor=10).claimed] == [1, 2, 3]


def test_no_claim_is_dated_before_the_last_exchange_whatever_the_clock_does(queue: Queue) -> None:
    queue.line(1)
    ahead = queue.now() + timedelta(hours=1)

    (claim,) = queue.exchange(free=1, since=ahead).claimed

    assert claim.started_at == ahead
    assert queue.exchange(finished=[claim.fence]).lost == set()


def test_time_of_an_exchange_is_not_after_its_claims(queue: Queue) -> None:
    queue.line(50)
    before = queue.now()

    exchanged = queue.exchange(free=50)

    assert before <= exchanged.at <= min(claim.started_at for claim in exchanged.claimed)


OVERTAKEN = """
SELECT count(*)
FROM orders AS earlier
JOIN orders AS later ON later.seq > earlier.seq
                    AND later.started_at < earlier.started_at
"""


def test_concurrent_claimers_get_every_order_once_in_ticket_order_and_never_too_many(
    queue: Queue, connect: Callable[[], Connection], in_thread: Callable[..., Any]
) -> None:
    orders = 600
    queue.connection.execute(
        "INSERT INTO orders (order_id, user_id, item_ids, total_amount)"
        " SELECT gen_random_uuid(), 'ada', '{tea}', 1 FROM generate_series(1, %s)",
        (orders,),
    )

    def work(number: int) -> list[list[Any]]:
        connection, worker_id = connect_each[number], f"c{number}"
        batches: list[list[Any]] = []
        finished: list[Fence] = []
        # Another's claim may have a finished order locked for a moment, to find that it is not in line.
        while not batches or batches[-1] or finished:
            exchanged = queue.exchange(worker_id, finished=finished, free=number + 1, on=connection)
            assert exchanged.lost == set()
            finished = [*exchanged.busy, *(claim.fence for claim in exchanged.claimed)]
            batches.append(exchanged.claimed)
        return batches

    connect_each = [connect() for _ in range(6)]
    for number in range(6):
        queue.worker(f"c{number}")
    by_worker = [running.result() for running in [in_thread(work, number) for number in range(6)]]

    times = Counter(claim.order_id for batches in by_worker for batch in batches for claim in batch)
    assert len(times) == orders
    assert set(times.values()) == {1}
    for number, batches in enumerate(by_worker):
        tickets = [[claim.seq for claim in batch] for batch in batches]
        assert all(len(batch) <= number + 1 for batch in batches)
        assert [batch for batch in tickets if batch != sorted(batch)] == []
    assert queue.value("SELECT count(*) FROM orders WHERE status = 'completed' AND attempt = 1") == orders
    assert queue.value(OVERTAKEN) == 0


def test_order_that_is_taken_while_an_exchange_is_about_to_is_left_alone(
    queue: Queue, connect: Callable[[], Connection], lock: Callable[..., Connection]
) -> None:
    taken, free = queue.line(2)
    psql = lock(taken)
    psql.execute(
        "UPDATE orders SET status = 'cancelled', finished_at = clock_timestamp() WHERE order_id = %s",
        (taken,),
    )

    claimed = queue.exchange(free=2, on=connect()).claimed
    psql.execute("COMMIT")

    assert [claim.order_id for claim in claimed] == [free]
    assert queue.claim(free=2) == []


def test_redriven_order_keeps_its_attempts_and_is_claimed_from_its_new_place(queue: Queue) -> None:
    redriven = queue.insert("failed")
    waiting = queue.insert()
    redrive.redrive(queue.connection, redriven, attempts=2)

    claimed = queue.claim(free=2)

    assert [(claim.order_id, claim.attempt, claim.attempt_limit) for claim in claimed] == [
        (waiting, 1, 5),
        (redriven, 6, 7),
    ]


def test_recovered_are_the_claims_of_a_worker_that_it_does_not_hold_by_ticket(queue: Queue) -> None:
    orders = queue.line(5)
    since = queue.exchange().at
    held, *lost = queue.claim(free=4)
    queue.claim("v")
    queue.exchange(finished=[lost[0].fence])

    found = recover_claims(queue.connection, "w", held=[held.order_id], since=since)

    assert found == lost[1:]
    assert [claim.order_id for claim in found] == orders[2:4]


def test_claims_from_before_the_last_answer_are_not_recovered(queue: Queue) -> None:
    queue.line(1)
    (claim,) = queue.claim()

    later = claim.started_at + timedelta(microseconds=1)
    assert recover_claims(queue.connection, "w", held=[], since=later) == []
    assert recover_claims(queue.connection, "w", held=[], since=claim.started_at) == [claim]


def test_claim_that_a_trigger_suppresses_is_told_from_an_empty_line(queue: Queue) -> None:
    suppressed = queue.insert(user_id="eve")
    queue.connection.execute("""
        CREATE FUNCTION pg_temp.suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER suppress BEFORE UPDATE ON orders FOR EACH ROW
        WHEN (NEW.user_id = 'eve') EXECUTE FUNCTION pg_temp.suppress();
    """)
    try:
        exchanged = [queue.exchange(free=free) for free in (0, 1, 2)]
        pause.pause(queue.connection)
        exchanged.append(queue.exchange(free=1))
    finally:
        queue.connection.execute("DROP TRIGGER suppress ON orders")
    pause.resume(queue.connection)
    claimed = queue.exchange(free=2)
    empty = queue.exchange(free=2)

    assert [(each.claimed, each.suppressed) for each in exchanged] == [
        ([], False),
        ([], True),
        ([], True),
        ([], False),
    ]
    assert ([claim.order_id for claim in claimed.claimed], claimed.suppressed) == ([suppressed], False)
    assert not empty.suppressed


def test_completion_that_a_trigger_turns_back_is_no_claim(queue: Queue) -> None:
    queue.line(1)
    (claim,) = queue.claim()
    queue.connection.execute("""
        CREATE FUNCTION pg_temp.turn_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
        CREATE TRIGGER turn_back BEFORE UPDATE ON orders FOR EACH ROW
        WHEN (NEW.status = 'completed') EXECUTE FUNCTION pg_temp.turn_back();
    """)
    try:
        exchanged = queue.exchange("w", finished=[claim.fence], free=1)
    finally:
        queue.connection.execute("DROP TRIGGER turn_back ON orders")

    assert (exchanged.claimed, exchanged.busy) == ([], {claim.fence})
    assert not exchanged.suppressed
