"""Whether a real orders-api says that it is ready when orders can be stored, and only then."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orders_api.database.readiness import CACHE_SECONDS
from schema.runtime.connection import Connection
from tests.api.conftest import ORDER, Answer, Api, StartApi
from tests.roles import Guarded

RAISE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE {0} USING MESSAGE = 'host db-7, password s3cr3t'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH {1} EXECUTE FUNCTION refuse()
"""
FORGET = "DROP TRIGGER refuse ON orders; DROP FUNCTION refuse()"

SECURE = "ALTER TABLE orders ENABLE ROW LEVEL SECURITY"
OPEN = "ALTER TABLE orders DISABLE ROW LEVEL SECURITY"

FAULTS = {
    "no privilege on a column": ("REVOKE INSERT (user_id) ON orders FROM api", None, "`orders grants`"),
    "no privilege to see what is stored": ("REVOKE SELECT ON orders FROM api", None, "`orders grants`"),
    "no privilege on keys": ("REVOKE INSERT ON idempotency_keys FROM api", None, "`orders grants`"),
    "no privilege to read a key": ("REVOKE SELECT ON idempotency_keys FROM api", None, "`orders grants`"),
    "no privilege on the revision": ("REVOKE SELECT ON alembic_version FROM api", None, "`orders grants`"),
    "no way into the schema": ("REVOKE USAGE ON SCHEMA public FROM api", None, "`orders grants`"),
    "row level security without a policy": (SECURE, OPEN, "ow level security"),
    "row level security that shows orders": (
        f"{SECURE}; CREATE POLICY shown ON orders FOR SELECT USING (true)",
        f"{OPEN}; DROP POLICY shown ON orders",
        "ow level security",
    ),
    "row level security that hides what it takes": (
        f"{SECURE}; CREATE POLICY taken ON orders FOR INSERT WITH CHECK (true)",
        f"{OPEN}; DROP POLICY taken ON orders",
        "ow level security",
    ),
    "row level security for others": (
        f"{SECURE}; CREATE POLICY others ON orders TO worker USING (true)",
        f"{OPEN}; DROP POLICY others ON orders",
        "ow level security",
    ),
    "a trigger that refuses every statement": (RAISE.format("EXCEPTION", "STATEMENT"), FORGET, "the log"),
    "a lost function of the tally": (
        "ALTER TABLE tally_changes RENAME TO lost",
        "ALTER TABLE lost RENAME TO tally_changes",
        "the log",
    ),
    "a renamed column": (
        "ALTER TABLE orders RENAME user_id TO customer_id",
        "ALTER TABLE orders RENAME customer_id TO user_id",
        "the log",
    ),
}
"""What keeps every order out, how it ends (None: the grants are given again), and what the reason names."""


def ready(api: Api) -> Answer:
    return api.call("GET", "/readyz")


@pytest.fixture
def owner(guarded: Guarded) -> Iterator[Connection]:
    with Connection.open(guarded.url, name="test") as connection:
        yield connection


@pytest.fixture
def api(start_api: StartApi, guarded: Guarded) -> Api:
    guarded.grant("api")
    return start_api(guarded.url_of("api"))


@pytest.mark.parametrize("fault", FAULTS)
def test_api_is_not_ready_while_no_order_can_be_stored_and_says_why(
    api: Api, guarded: Guarded, owner: Connection, wait_until: Callable[..., Any], fault: str
) -> None:
    begin, end, words = FAULTS[fault]
    assert ready(api).status == 200

    owner.execute(begin)
    answer = wait_until(lambda: (answer := ready(api)).status == 503 and answer)

    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"] == "1"
    assert answer.json["type"] == "/problems/not-ready"
    assert words in answer.json["detail"]
    assert "s3cr3t" not in answer.body.decode()
    assert api.call("GET", "/healthz").status == 200
    assert [ready(api).status for _ in range(3)] == [503, 503, 503]

    owner.execute(end) if end else guarded.grant("api")
    wait_until(lambda: ready(api).status == 200)
    assert api.post().status == 201
    assert api.log.count("ERROR api_not_ready") == api.log.count("INFO api_ready") == 1


@contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    with Connection.open(url, name="test") as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {table}")
        yield


@pytest.mark.parametrize("table", ["orders", "idempotency_keys", "tally_changes", "queue"])
def test_locked_table_is_named_and_any_number_of_probes_are_answered_meanwhile(
    api: Api, guarded: Guarded, wait_until: Callable[..., Any], table: str
) -> None:
    answers: list[Answer] = []
    with locked(guarded.url, table):
        wait_until(lambda: ready(api).status == 503)
        probes = [threading.Thread(target=lambda: answers.append(ready(api))) for _ in range(40)]
        began = time.monotonic()
        for probe in probes:
            probe.start()
        for probe in probes:
            probe.join()
        took = time.monotonic() - began

    assert {answer.status for answer in answers} == {503}
    assert all("lock" in answer.json["detail"] for answer in answers)
    assert took < 10  # each by itself: twenty
    wait_until(lambda: ready(api).status == 200)


@pytest.mark.parametrize(
    ("error", "words"), [("disk_full", "disk"), ("insufficient_privilege", "`orders grants`")]
)
def test_what_a_post_has_met_is_found_again_until_it_is_over(
    api: Api, owner: Connection, wait_until: Callable[..., Any], error: str, words: str
) -> None:
    assert ready(api).status == 200
    owner.execute(RAISE.format(error, "ROW"))
    assert api.post().status >= 500

    answers = [ready(api)]  # at once: what was known a moment ago no longer counts
    time.sleep(1.1 * CACHE_SECONDS)
    answers.append(ready(api))

    assert [answer.status for answer in answers] == [503, 503]
    assert words in answers[1].json["detail"]
    assert "s3cr3t" not in answers[1].body.decode()
    owner.execute(FORGET)
    wait_until(lambda: ready(api).status == 200)


USERS = """
CREATE TABLE users (user_id text PRIMARY KEY);
ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users NOT VALID
"""


@pytest.mark.parametrize(
    "begin",
    [
        USERS,
        RAISE.format("EXCEPTION", "ROW"),
        "CREATE RULE log AS ON INSERT TO orders DO ALSO SELECT 1",
        f"{SECURE}; CREATE POLICY api ON orders TO api USING (true)",
        f"{SECURE}; CREATE POLICY api ON orders TO api USING (true) WITH CHECK (user_id <> 'mallory')",
    ],
    ids=["foreign key", "trigger", "rule", "policy that lets it in", "policy that looks at the order"],
)
def test_order_that_is_refused_for_what_is_in_it_makes_nobody_unready(
    api: Api, owner: Connection, begin: str
) -> None:
    assert api.post().status == 201
    owner.execute(begin)
    api.post({**ORDER, "user_id": "mallory"})

    time.sleep(1.1 * CACHE_SECONDS)
    assert ready(api).status == 200
    api.post({**ORDER, "user_id": "mallory"})
    assert ready(api).status == 200


def test_probe_stores_nothing_and_draws_no_ticket(api: Api, owner: Connection) -> None:
    def found() -> object:
        return owner.one(
            "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM idempotency_keys),"
            " (SELECT last_value FROM orders_seq_seq), (SELECT count(*) FROM tally_changes),"
            " pg_relation_size('orders'), pg_relation_size('tally_changes')"
        )

    before = found()
    for _ in range(2):
        assert ready(api).status == 200
        time.sleep(1.1 * CACHE_SECONDS)

    assert found() == before


def test_server_that_takes_no_writes_any_more_is_not_ready(
    api: Api, owner: Connection, wait_until: Callable[..., Any]
) -> None:
    assert ready(api).status == 200
    owner.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    owner.execute("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: ready(api).status == 503)
    finally:
        owner.execute("SET default_transaction_read_only = off")
        owner.execute("ALTER SYSTEM RESET default_transaction_read_only")
        owner.execute("SELECT pg_reload_conf()")
    wait_until(lambda: ready(api).status == 200)
