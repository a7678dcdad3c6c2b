"""What the judge finds in a database in which one thing is wrong."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from schema.queue import tally
from schema.runtime.connection import Connection
from tests.chaos import progress, rescues, verdict
from tests.chaos.clients import Submission
from tests.chaos.evidence import Breach, Evidence
from tests.chaos.handler import LEDGER
from tests.chaos.processes import Exit
from tests.chaos.rescues import Cause
from tests.chaos.scene import EVERYWHERE, SERVER, Happening, Span, Stall

START = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """A run that is over: one order for each client, completed, with its effect in the ledger."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        connection.execute(LEDGER)
        self.submissions = [self.place(seq) for seq in (1, 2, 3)]

    def place(self, seq: int) -> Submission:
        order_id, sent = uuid4(), Submission(f"key-{seq}", ["plain", "0", "ledger"], Decimal("2.50"))
        sent.answered.append(order_id)
        self.connection.execute(
            "INSERT INTO orders (order_id, seq, user_id, item_ids, total_amount, queued_at, started_at,"
            " finished_at, status, attempt, attempt_limit, worker_id)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'completed', 1, 100, 'w')",
            (order_id, seq, sent.key, sent.item_ids, sent.amount, START, at(seq), at(seq + 0.1)),
        )
        self.connection.execute("INSERT INTO ledger VALUES (%s, %s, 1, 0)", (order_id, sent.amount))
        return sent

    @property
    def order_id(self) -> UUID:
        return self.submissions[1].answered[0]

    def execute(self, statement: str) -> None:
        """Change the second order; `%(id)s` is its id."""
        self.connection.execute(statement, {"id": self.order_id})

    def take_back(self, changes: str) -> None:
        """Change the second order, which is final, into another state: what the database refuses."""
        with self.connection.transaction():
            self.connection.execute("ALTER TABLE orders DISABLE TRIGGER orders_tally_update")
            self.execute(f"UPDATE orders SET {changes} WHERE order_id = %(id)s")
            self.connection.execute("ALTER TABLE orders ENABLE TRIGGER orders_tally_update")
        tally.recount(self.connection)

    def promises(self, **evidence: Any) -> dict[str, UUID | None]:
        """Return the promises that the judge finds broken, each with the order that it names."""
        seen = Evidence(submissions=self.submissions, **evidence)
        return {each.promise: each.order_id for each in verdict.judge_all(self.connection, seen).breaches}


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def span(first: float, last: float) -> Span:
    return at(first).timestamp(), at(last).timestamp()


def happening(kind: str, place: str, first: float, last: float) -> Happening:
    return Happening(kind, place, "", *span(first, last))


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection)


def test_run_in_which_nothing_is_wrong_breaks_no_promise(world: World) -> None:
    assert world.promises() == {}


def test_count_that_is_off_is_a_breach(world: World) -> None:
    world.execute("UPDATE tally SET completed = completed + 1")

    assert world.promises() == {"exact metrics": None}


def test_accepted_order_that_is_not_there_is_lost(world: World) -> None:
    world.execute("DELETE FROM ledger WHERE order_id = %(id)s")
    lost = world.order_id
    world.execute("DELETE FROM orders WHERE order_id = %(id)s")

    assert world.promises() == {"durable": lost}


@pytest.mark.parametrize("change", ["user_id = 'eve'", "total_amount = 2.51", "item_ids[1] = 'hang'"])
def test_stored_order_that_is_not_what_was_sent_is_found(world: World, change: str) -> None:
    world.execute(f"UPDATE orders SET {change} WHERE order_id = %(id)s")

    assert world.promises()["durable"] == world.order_id


def test_order_that_should_have_been_completed_and_failed_is_found(world: World) -> None:
    world.execute("DELETE FROM ledger WHERE order_id = %(id)s")
    world.take_back("status = 'failed'")

    assert world.promises() == {"durable": world.order_id}


def test_second_order_under_one_key_is_found(world: World) -> None:
    again = world.place(4)
    world.execute("UPDATE orders SET user_id = 'key-2' WHERE user_id = 'key-4'")

    assert world.promises() == {"idempotent": again.answered[0]}


def test_two_answers_to_one_key_are_found(world: World) -> None:
    world.submissions[1].answered.append(world.submissions[0].answered[0])

    assert "idempotent" in world.promises()


def test_key_that_was_taken_with_another_order_is_found(world: World) -> None:
    world.submissions[1].misused.append(world.order_id)

    assert world.promises() == {"idempotent": world.order_id}


def test_order_that_nobody_sent_is_found(world: World) -> None:
    sent = world.submissions.pop()

    assert world.promises() == {"idempotent": sent.answered[0]}


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO ledger SELECT * FROM ledger WHERE order_id = %(id)s",
        "DELETE FROM ledger WHERE order_id = %(id)s",
        "UPDATE ledger SET amount = 3 WHERE order_id = %(id)s",
    ],
)
def test_effect_that_is_not_there_exactly_once_is_found(world: World, change: str) -> None:
    world.execute(change)

    assert world.promises() == {"exactly once": world.order_id}


def test_order_in_the_hands_of_a_dead_worker_is_found(world: World) -> None:
    world.execute("DELETE FROM ledger WHERE order_id = %(id)s")
    world.take_back("status = 'processing', finished_at = NULL")

    assert world.promises() == {"rescue": world.order_id}


def test_order_that_never_ended_is_found(world: World) -> None:
    world.execute("DELETE FROM ledger WHERE order_id = %(id)s")
    world.take_back(
        "status = 'retrying', retry_at = now(), finished_at = NULL, started_at = NULL, worker_id = NULL"
    )
    world.execute(
        "INSERT INTO attempts (order_id, attempt, worker_id, seq, queued_at, started_at, ended_at, outcome)"
        f" VALUES (%(id)s, 1, 'w', 2, '{START}', '{at(2)}', '{at(2.1)}', 'raised')"
    )

    assert world.promises() == {"progress": world.order_id}


def test_order_that_was_never_answered_is_found(world: World) -> None:
    world.submissions.append(Submission("key-9", ["plain", "0", "none"], Decimal(1)))

    assert world.promises() == {"progress": None}


def test_order_that_others_passed_is_found_unless_a_fault_had_it_locked(world: World) -> None:
    world.execute("UPDATE orders SET started_at = '2026-01-01 00:00:09Z' WHERE order_id = %(id)s")

    assert world.promises() == {"first come, first served": world.order_id}
    assert world.promises(locked={world.order_id: [span(1, 2.5)]}) == {}
    assert world.promises(locked={world.order_id: [span(4, 9)]}) != {}


def test_claim_that_cannot_be_judged_is_found(world: World) -> None:
    world.execute(
        "INSERT INTO attempts (order_id, attempt, worker_id, started_at, ended_at, outcome)"
        " SELECT order_id, 1, 'v', started_at, started_at, 'raised' FROM orders WHERE order_id = %(id)s"
    )
    world.execute("UPDATE orders SET attempt = 2 WHERE order_id = %(id)s")

    assert world.promises() == {"first come, first served": None}


def test_order_that_was_passed_while_the_server_was_slow_to_commit_it_is_late(world: World) -> None:
    world.execute("UPDATE orders SET started_at = '2026-01-01 00:00:09Z' WHERE order_id = %(id)s")
    queued = START.timestamp()

    assert world.promises(away=[(queued, queued + 2)]) == {"first come, first served": world.order_id}
    assert world.promises(away=[(queued, queued + 2.6)]) == {}


def test_attempt_that_began_before_the_one_before_had_ended_is_found(world: World) -> None:
    world.execute(
        "INSERT INTO attempts (order_id, attempt, worker_id, seq, queued_at, started_at, ended_at, outcome)"
        " SELECT order_id, 1, 'v', seq, queued_at, started_at, started_at + '1 hour', 'raised'"
        " FROM orders WHERE order_id = %(id)s"
    )
    world.execute("UPDATE orders SET attempt = 2 WHERE order_id = %(id)s")

    assert world.promises() == {"fenced": world.order_id}


@pytest.mark.parametrize(
    "evidence",
    [
        {"differences": ["the ledger has 1, the completed orders 2"]},
        {"failures": ["a fault failed"]},
        {"exits": [Exit("worker-1", 1, 1, 0.0, at=1.0, expected=False)]},
    ],
)
def test_what_was_seen_meanwhile_counts_too(world: World, evidence: dict[str, Any]) -> None:
    assert len(world.promises(**evidence)) == 1


def test_half_a_minute_without_a_completion_around_a_fault_is_found(world: World) -> None:
    world.execute("UPDATE orders SET finished_at = '2026-01-01 00:00:34Z' WHERE seq = 3")

    assert "progress" in world.promises(happenings=[happening("kill-server", SERVER, 2, 3)])


def test_pause_after_the_last_completion_counts_while_an_order_is_open(world: World) -> None:
    fault = happening("long-snapshot", SERVER, 2, 31)
    done = progress.measure(world.connection, Evidence([], happenings=[fault]))
    world.take_back("finished_at = NULL, status = 'processing'")
    open_ = progress.measure(world.connection, Evidence([], happenings=[fault]))

    assert done.around["long-snapshot"] < 2
    assert open_.around["long-snapshot"] == pytest.approx(41 - 3.1)


@pytest.mark.parametrize(
    ("others", "stuck"),
    [
        ([], True),
        ([("long-snapshot", SERVER, 0, 9), ("lock-rows", SERVER, 0, 1)], True),
        ([("kill-worker", "worker-1", 0, 0)], False),
    ],
)
def test_completions_that_wait_for_a_lock_are_found_if_nothing_else_is_wrong(
    world: World, others: list[tuple[str, str, float, float]], *, stuck: bool
) -> None:
    world.execute("UPDATE orders SET finished_at = '2026-01-01 00:00:08Z' WHERE seq = 3")
    lock = happening("lock-rows", SERVER, 4, 8)

    found = world.promises(happenings=[lock, *(happening(*each) for each in others)])

    assert found == ({"one stuck row": None} if stuck else {})
    assert world.promises(happenings=[lock], away=[span(-5, -4)]) == {}


class Rescued:
    """The second order, claimed on worker-1 at 1 s and lost at 10 s; the other workers are alive."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.execute(
            "INSERT INTO workers (worker_id, host, pid, slots, lease_seconds) VALUES ('w', '', 7, 1, 10)"
        )

    def breaches(self, seconds: float, *, declared: float | None = None, **evidence: Any) -> list[Breach]:
        """Return what is found if its worker was `declared` dead then and the order is back in line then."""
        self._world.execute(
            "INSERT INTO attempts (order_id, attempt, worker_id, seq, queued_at, started_at, ended_at,"
            f" outcome) VALUES (%(id)s, 1, 'w', 2, '{START}', '{at(1)}', '{at(seconds)}', 'rescued')"
        )
        self._world.execute(f"UPDATE workers SET dead_at = '{at(seconds if declared is None else declared)}'")
        seen = Evidence([], workers=("worker-1", "worker-2", "worker-3"), **evidence)
        self.found = rescues.measure(self._world.connection, seen)
        return rescues.breaches(self.found, seen)


@pytest.fixture
def rescued(world: World) -> Rescued:
    return Rescued(world)


KILLED = Exit("worker-1", 7, -9, 0.0, at=at(10).timestamp(), expected=True)
AT_THE_END = Exit("worker-1", 7, 0, 0.0, at=at(99).timestamp(), expected=True)


@pytest.mark.parametrize(
    ("seconds", "disturbed_until", "slow"),
    [(4.9, 0, False), (5.1, 0, True), (15.1, 1, False), (16.1, 1, True)],
)
def test_rescue_has_five_seconds_or_a_lease_and_a_little_after_another_fault(
    rescued: Rescued, seconds: float, disturbed_until: float, *, slow: bool
) -> None:
    others = [happening("kill-server", SERVER, 9, 10 + disturbed_until)] if disturbed_until else []

    found = rescued.breaches(10 + seconds, exits=[KILLED], happenings=others)

    assert bool(found) is slow


@pytest.mark.parametrize(
    ("others", "disturbed"),
    [
        ([("stop-worker", "worker-2")], False),
        ([("stop-worker", "worker-2"), ("cut-network", "worker-3")], True),
        ([("stop-worker", "worker-2"), ("kill-worker", "worker-3")], False),
        ([("cut-network", "api-1"), ("stop-api", "api-1"), ("stop-worker", "worker-1")], False),
        ([("stall-network", "worker-1")], True),
        ([("cut-network", EVERYWHERE)], True),
        ([("terminate-session", SERVER)], True),
        ([("lock-rows", SERVER), ("long-snapshot", SERVER)], False),
    ],
)
def test_rescue_is_disturbed_if_none_of_the_others_was_left_alone(
    rescued: Rescued, others: list[tuple[str, str]], *, disturbed: bool
) -> None:
    happenings = [happening(kind, place, 8, 9) for kind, place in others]

    rescued.breaches(13, exits=[KILLED], happenings=happenings)

    assert [each.disturbed for each in rescued.found.timed] == [disturbed]


@pytest.mark.parametrize(
    ("seconds", "declared", "slow"), [(21, 21, False), (24.9, 21, False), (25.1, 21, True), (60, 21, True)]
)
def test_rescue_after_a_stall_has_a_lease_and_a_little(
    rescued: Rescued, seconds: float, declared: float, *, slow: bool
) -> None:
    stall = Stall(7, *span(10, 24))

    found = rescued.breaches(seconds, declared=declared, exits=[AT_THE_END], stalls=[stall])

    assert [each.cause for each in rescued.found.timed] == [Cause.STALL]
    assert bool(found) is slow


@pytest.mark.parametrize(
    ("seconds", "restarted", "slow"),
    [
        (30.9, ["worker-2", "worker-3"], False),
        (31.1, ["worker-2", "worker-3"], True),
        (25.1, ["worker-2"], True),
        (25.1, [], True),
    ],
)
def test_rescue_after_a_stall_may_wait_for_a_lease_of_the_others_that_have_just_started(
    rescued: Rescued, seconds: float, restarted: list[str], *, slow: bool
) -> None:
    exits = [Exit(name, 8, 70, 0.0, at=at(16).timestamp(), expected=True) for name in restarted]

    found = rescued.breaches(
        seconds, declared=21, exits=[*exits, AT_THE_END], stalls=[Stall(7, *span(10, 24))]
    )

    assert bool(found) is slow


def test_start_of_the_others_does_not_delay_the_rescue_after_a_kill(rescued: Rescued) -> None:
    exits = [
        Exit(name, 8, 70, 0.0, at=at(10).timestamp(), expected=True) for name in ("worker-2", "worker-3")
    ]

    assert rescued.breaches(15.1, exits=[*exits, KILLED])


def test_kill_after_a_stall_that_the_worker_survived_is_the_cause(rescued: Rescued) -> None:
    found = rescued.breaches(15.1, declared=13, exits=[KILLED], stalls=[Stall(7, *span(2, 5))])

    assert [each.cause for each in rescued.found.timed] == [Cause.KILL]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("fault", "living"),
    [
        (None, True),
        (("cut-network", "worker-2", 18, 19), True),
        (("wrong-clock", "worker-1", 18, 19), True),
        (("cut-network", "worker-1", 3, 4), True),
        (("cut-network", "worker-1", 18, 19), False),
        (("cut-network", EVERYWHERE, 18, 19), False),
        (("kill-session", SERVER, 5, 6), False),
    ],
)
def test_order_taken_from_a_living_worker_is_found_unless_a_fault_had_cut_it_off(
    rescued: Rescued, fault: tuple[str, str, float, float] | None, *, living: bool
) -> None:
    found = rescued.breaches(20, exits=[AT_THE_END], happenings=[happening(*fault)] if fault else [])

    assert [each.words for each in found] == (["was taken from a living worker"] if living else [])
    assert len(rescued.found.living) == living
    assert len(rescued.found.cut_off) == (not living)


@pytest.mark.parametrize(("locked", "slow"), [((12, 14), False), ((2, 4), True)])
def test_rescue_of_an_order_that_a_fault_had_locked_meanwhile_is_not_timed(
    world: World, rescued: Rescued, locked: tuple[float, float], *, slow: bool
) -> None:
    found = rescued.breaches(18, exits=[KILLED], locked={world.order_id: [span(*locked)]})

    assert bool(found) is slow
