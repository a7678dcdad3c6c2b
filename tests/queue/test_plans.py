"""What each statement reads by, at two million orders, whatever the planner believes about them."""

import json
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql

from schema import migrate
from schema.order import Fence
from schema.queue import (
    cancel,
    completion,
    due,
    endings,
    exchange,
    idempotency,
    redrive,
    refusal,
    rescue,
    retries,
)
from schema.queue import workers as workers_module
from schema.reports import lists, metrics, show, storing
from schema.runtime.connection import Connection
from tests.rows import Queue

LOAD = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount, status, attempt, attempt_limit, worker_id,
                    started_at, finished_at, retry_at)
SELECT gen_random_uuid(), 'ada', '{tea}', 1, kind,
       CASE WHEN kind = 'pending' THEN (n % 100 = 0)::integer WHEN kind = 'cancelled' THEN 0 ELSE 1 END,
       5,
       CASE kind WHEN 'processing' THEN (ARRAY['living', 'dead'])[n % 2 + 1] WHEN 'completed' THEN 'gone' END,
       CASE WHEN kind IN ('processing', 'completed')
            THEN clock_timestamp() - INTERVAL '1 day' + n * INTERVAL '10 ms' END,
       CASE WHEN kind IN ('cancelled', 'completed') THEN clock_timestamp() END,
       CASE WHEN kind = 'retrying' THEN clock_timestamp() + (n - 1000) * INTERVAL '1 second' END
FROM generate_series(1, 2000000) AS n
CROSS JOIN LATERAL (
    SELECT CASE
               WHEN n <= 1000000 THEN (ARRAY['cancelled', 'retrying'])[n % 2 + 1]
               WHEN n <= 1300000 THEN 'completed'
               WHEN n <= 1302000 THEN 'processing'
               ELSE 'pending'
           END AS kind
) AS kinds
"""
"""A million orders, and a million cancelled and retrying ones in front of them."""

WORKERS = """
INSERT INTO workers (worker_id, oldest_claim_at, dead_at)
SELECT worker_id, min(started_at), CASE worker_id WHEN 'dead' THEN max(started_at) END
FROM orders
WHERE status = 'processing'
GROUP BY worker_id
"""

FEW = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
SELECT gen_random_uuid(), 'ada', '{tea}', 1 FROM generate_series(1, 1000)
"""

ORDINARY = """
INSERT INTO orders (order_id, user_id, item_ids, total_amount)
SELECT gen_random_uuid(), gen_random_uuid()::text,
       ARRAY[gen_random_uuid()::text, gen_random_uuid()::text, gen_random_uuid()::text], 150.75
FROM generate_series(1, 1000)
"""

KEYS = """
INSERT INTO idempotency_keys (idempotency_key, order_id, order_hash, created_at)
SELECT gen_random_uuid(), gen_random_uuid(), '', clock_timestamp() - n * INTERVAL '1 second'
FROM generate_series(1, 100000) AS n
"""
"""Somewhat more than a day of keys."""

STATISTICS = ["new", "from when it was empty", "from when it was small"]
PLANS = ["force_custom_plan", "force_generic_plan"]

TYPES = {
    "after": "timestamptz",
    "at": "timestamptz",
    "attempt": "integer",
    "attempts": "integer[]",
    "errors": "text[]",
    "floor": "bigint",
    "free": "bigint",
    "held": "uuid[]",
    "idle": "boolean",
    "key": "text",
    "limit": "bigint",
    "max_attempts": "integer",
    "oldest_claim_at": "timestamptz",
    "order_id": "uuid",
    "mark": "text",
    "order_ids": "uuid[]",
    "outcomes": "text[]",
    "retry_seconds": "double precision[]",
    "since": "timestamptz",
    "user_id": "text",
    "worker_id": "text",
}

CLAIM = {"orders_pkey", "orders_line", "orders_returned", "orders_alone"}
BY_KEY = {"orders_pkey"}
BY_START = {"orders_started"}
STATEMENTS: dict[str, tuple[str, set[str]]] = {
    "exchange of 100": (exchange.EXCHANGE, CLAIM),
    "exchange of 1": (exchange.EXCHANGE, CLAIM),
    "exchange of 1000": (exchange.EXCHANGE, CLAIM),
    "exchange from the beginning": (exchange.EXCHANGE, CLAIM),
    "exchange of 100 with nothing finished": (exchange.EXCHANGE, CLAIM),
    "exchange of 100 beside one that runs alone": (exchange.EXCHANGE_ALONE, CLAIM),
    "recover_claims": (exchange.RECOVER_CLAIMS, BY_START),
    "end": (endings._END, BY_KEY),
    "complete": (completion._COMPLETE, BY_KEY),
    "state": (completion._CLAIM_STATE, BY_KEY),
    "is free": (completion._IS_FREE, BY_KEY),
    "sweep": (rescue.SWEEP, BY_START | BY_KEY),
    "mark swept": (rescue.SWEPT, BY_START),
    "patrol": (rescue.PATROL, BY_START | BY_KEY),
    "return due": (retries.RETURN_DUE, {"orders_due"} | BY_KEY),
    "cancel": (cancel._CANCEL, BY_KEY),
    "redrive": (redrive._REDRIVE.replace("%(attempts)s", "5"), BY_KEY),
    "redrive failed": (redrive._REDRIVE_FAILED.replace("%(attempts)s", "5"), BY_KEY),
    "refusal": (refusal._STATUS, BY_KEY),
    "show": (show._SHOW.replace("%s", "%(order_ids)s"), BY_KEY),
    "list pending": (lists._PENDING, {"orders_line"}),
    "list processing": (lists._PROCESSING, BY_START),
    "chores": (due.DUE, {"orders_due"}),
    "metrics": (metrics._TIMES, BY_START | {"orders_line"}),
    "an order to try with": (storing._INSERT.replace("%s", "%(limit)s"), BY_KEY),
    "beat": (workers_module._BEAT, BY_KEY),
    "beat with nothing held": (workers_module._BEAT, BY_KEY),
}
"""Every statement that reads orders, but for those that need them all, and the indexes it goes by."""


@dataclass(frozen=True)
class Loaded:
    """A database of two million orders."""

    connection: Connection
    binds: dict[str, Any]

    def explain(self, name: str, *, plan: str, options: str = "FORMAT JSON") -> list[dict[str, Any]]:
        """Return all nodes of the plan of one of `STATEMENTS`."""
        binds = {**self.binds, **self._sizes(name)}
        order: list[str] = []

        def number(match: re.Match[str]) -> str:
            if match[1] not in order:
                order.append(match[1])
            return f"${order.index(match[1]) + 1}"

        statement = re.sub(r"%\((\w+)\)s", number, STATEMENTS[name][0])
        types = f"({', '.join(TYPES[bind] for bind in order)})" if order else ""
        values = sql.SQL(", ").join(sql.Literal(binds[bind]) for bind in order)
        execute = sql.SQL("EXECUTE statement({})").format(values) if order else sql.SQL("EXECUTE statement")
        explain = sql.SQL("EXPLAIN ({}) {}").format(sql.SQL(options), execute)
        with self.connection.transaction(force_rollback=True):
            self.connection.execute(f"SET LOCAL plan_cache_mode = {plan}")
            self.connection.execute(f"PREPARE statement{types} AS {statement}", prepare=False)
            try:
                row = self.connection.execute(explain, prepare=False).fetchone()
            finally:
                self.connection.execute("DEALLOCATE statement")
        assert row is not None
        return list(nodes(row[0][0]["Plan"]))

    def _sizes(self, name: str) -> dict[str, Any]:
        count = int((re.search(r"\d+", name) or ["100"])[0])
        return {
            "free": count,
            "order_ids": (self.binds["order_ids"] * 10)[:count],
            "attempts": [1] * count,
            "key": "infinity" if "processing" in name else "1900000",
            **({"floor": 0} if "beginning" in name else {}),
            **({"order_ids": [], "attempts": [], "held": []} if "nothing" in name else {}),
        }


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def indexes(plan: list[dict[str, Any]]) -> set[str]:
    return {node["Index Name"] for node in plan if node.get("Index Name", "").startswith("orders_")}


def scans(plan: list[dict[str, Any]]) -> list[str]:
    return [
        node["Node Type"]
        for node in plan
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "orders"
    ]


def open_loaded(url: str) -> Loaded:
    connection = Connection.open(url, name="test", reply_seconds=60)

    def value(statement: str) -> Any:
        row = connection.execute(statement).fetchone()
        assert row is not None
        return row[0]

    held = value(
        "SELECT array_agg(order_id) FROM (SELECT order_id FROM orders"
        " WHERE started_at IS NOT NULL AND worker_id = 'living' ORDER BY started_at LIMIT 100) AS held"
    )
    latest = value("SELECT max(started_at) FROM orders")
    return Loaded(
        connection,
        {
            "worker_id": "living",
            "order_ids": held,
            "held": held,
            "outcomes": ["raised"] * 100,
            "errors": ["it broke"] * 100,
            "retry_seconds": [1.0] * 100,
            "order_id": held[0],
            "mark": None,
            "attempt": 1,
            "floor": 1_400_000,
            "idle": False,
            "since": latest,
            "oldest_claim_at": latest,
            "after": value("SELECT min(started_at) FROM orders"),
            "max_attempts": 5,
            "at": latest,
            "limit": 51,
            "user_id": None,
        },
    )


@pytest.fixture(scope="module")
def databases(server_url: str) -> Iterator[Callable[[str], str]]:
    """Load each database when it is first asked for."""
    made: dict[str, str] = {}
    with psycopg.connect(server_url, autocommit=True) as admin, ExitStack() as stack:

        def create(template: str) -> str:
            name = f"orders_plans_{secrets.token_hex(6)}"
            admin.execute(f"CREATE DATABASE {name} {template}")
            stack.callback(admin.execute, f"DROP DATABASE {name} WITH (FORCE)")
            return name

        def load(statistics: str) -> str:
            if statistics == "new":
                name = create(f"TEMPLATE {conninfo.conninfo_to_dict(database(STATISTICS[1]))['dbname']}")
                with psycopg.connect(url_of(name), autocommit=True) as connection:
                    connection.execute("ANALYZE orders, workers")
                return name
            name = create("")
            migrate.upgrade(url_of(name))
            with psycopg.connect(url_of(name), autocommit=True) as connection:
                connection.execute("ALTER TABLE orders SET (autovacuum_enabled = off)")
                if statistics == STATISTICS[2]:
                    connection.execute(FEW)
                connection.execute("ANALYZE orders")
                connection.execute(LOAD)
                connection.execute(WORKERS)
            return name

        def url_of(name: str) -> str:
            return conninfo.make_conninfo(server_url, dbname=name)

        def database(statistics: str) -> str:
            if statistics not in made:
                made[statistics] = url_of(load(statistics))
            return made[statistics]

        yield database


@pytest.fixture(params=STATISTICS)
def loaded(databases: Callable[[str], str], request: pytest.FixtureRequest) -> Iterator[Loaded]:
    opened = open_loaded(databases(request.param))
    with opened.connection:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_every_statement_goes_by_its_own_indexes_and_never_reads_all_orders(
    loaded: Loaded, plan: str
) -> None:
    plans = {name: loaded.explain(name, plan=plan) for name in STATEMENTS}

    assert {name: scans(found) for name, found in plans.items() if scans(found)} == {}
    assert {name: indexes(found) for name, found in plans.items()} == {
        name: expected for name, (_, expected) in STATEMENTS.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_exchange_looks_finished_orders_up_by_key_also_when_there_are_none(loaded: Loaded, plan: str) -> None:
    for name in (name for name in STATEMENTS if name.startswith("exchange")):
        (held,) = (node for node in loaded.explain(name, plan=plan) if node.get("Subplan Name") == "CTE held")

        # To the planner `= ANY ('{}')` is false and implies every partial index's predicate.
        assert indexes(list(nodes(held))) == {"orders_pkey"}


def test_every_index_is_used_by_some_statement(queue: Queue) -> None:
    existing = queue.value("SELECT array_agg(indexname) FROM pg_indexes WHERE tablename = 'orders'")

    assert set(existing) == {index for _, used in STATEMENTS.values() for index in used}


@pytest.mark.parametrize("statistics", STATISTICS[:2])
def test_keys_are_pruned_by_age_and_found_by_themselves(queue: Queue, statistics: str) -> None:
    def scanned(statement: str) -> dict[str, str]:
        explain = f"EXPLAIN (FORMAT JSON) {statement}" % {"key": "'k'"}
        found = list(nodes(queue.value(explain)[0]["Plan"]))
        assert "Seq Scan" not in {node["Node Type"] for node in found}
        return {node["Index Name"]: node["Index Cond"] for node in found if "Index Name" in node}

    with queue.connection.transaction(force_rollback=True):
        queue.connection.execute("ANALYZE idempotency_keys")
        queue.connection.execute(KEYS)
        if statistics == "new":
            queue.connection.execute("ANALYZE idempotency_keys")

        assert scanned(idempotency._PRUNE).keys() == {"idempotency_keys_age", "idempotency_keys_pkey"}
        assert "created_at <" in scanned(idempotency._PRUNE)["idempotency_keys_age"]
        assert scanned(idempotency._FIND).keys() == {"idempotency_keys_pkey"}


def buffers(plan: list[dict[str, Any]]) -> int:
    (scan,) = (node for node in plan if node.get("Subplan Name") == "CTE from_floor")
    assert scan["Actual Rows"] == 100
    return int(scan["Shared Hit Blocks"] + scan["Shared Read Blocks"])


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_million_cancelled_and_retrying_orders_in_front_cost_the_claim_nothing(
    loaded: Loaded, queue: Queue, plan: str
) -> None:
    queue.connection.execute(FEW)
    queue.worker("living")
    alone = Loaded(queue.connection, loaded.binds)
    options = "ANALYZE, BUFFERS, FORMAT JSON"

    behind = buffers(loaded.explain("exchange from the beginning", plan=plan, options=options))
    without = buffers(alone.explain("exchange from the beginning", plan=plan, options=options))

    # Two levels more of the index's tree, whatever stands in front.
    assert behind <= without + 10, json.dumps({"behind": behind, "without": without})


def test_completing_changes_no_index(queue: Queue, connect: Callable[[], Connection]) -> None:
    queue.worker()
    # An ANALYZE by autovacuum, of any table, keeps pages from being pruned for as long as it takes.
    assert any(hot_completions(queue, connect()) >= 900 for _ in range(5))


def hot_completions(queue: Queue, observer: Connection) -> int:
    """Claim and complete 1,000 orders on a fresh table; return how many completions were HOT updates."""
    queue.connection.execute("TRUNCATE orders")
    queue.connection.execute(ORDINARY)
    before = hot_updates(queue, observer)
    finished: list[Fence] = []
    for _ in range(11):
        finished = [claim.fence for claim in queue.exchange(finished=finished, free=100).claimed]
    assert queue.value("SELECT count(*) FROM orders WHERE status = 'completed'") == 1000
    return hot_updates(queue, observer) - before


def hot_updates(queue: Queue, observer: Connection) -> int:
    queue.connection.execute("SELECT pg_stat_force_next_flush()")
    row = observer.execute(
        "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'orders'"
    ).fetchone()
    assert row is not None
    return int(row[0])
