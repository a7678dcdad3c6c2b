"""One order for one `Idempotency-Key`, whatever happens between the client and the database."""

import json
import re
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from falcon.testing import TestClient

from schema.order import NewOrder
from schema.queue.idempotency import submit_once
from schema.runtime.connection import Connection
from tests.api.conftest import Api, Relay, Submitted

ORDER: dict[str, Any] = {"user_id": "ada", "item_ids": ["tea", "cup"], "total_amount": 250.75}
SAME = NewOrder(user_id="ada", item_ids=("tea", "cup"), total_amount=Decimal("250.75"))


def post(client: TestClient, order: Any = ORDER, *, key: str = "k", **named: Any) -> Any:
    body = order if isinstance(order, bytes) else json.dumps(order).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, **named}
    return client.simulate_post("/orders", body=body, headers=headers)


def amount(literal: str) -> bytes:
    return b'{"user_id": "ada", "item_ids": ["tea"], "total_amount": %s}' % literal.encode()


@pytest.fixture
def keys(connection: Connection) -> Callable[[], int]:
    """Count the keys in the database."""

    def count() -> int:
        row = connection.execute("SELECT count(*) FROM idempotency_keys").fetchone()
        assert row is not None
        return int(row[0])

    return count


@pytest.fixture
def waiting(connect: Callable[[], Connection]) -> Callable[[], bool]:
    """Tell whether the API waits for another transaction to end."""
    watcher = connect()

    def look() -> bool:
        row = watcher.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event = 'transactionid'"
        ).fetchone()
        return row == (1,)

    return look


def test_replay_is_the_same_answer_and_says_that_it_is_one(
    client: TestClient, stored: Callable[[], int], submitted: Submitted, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "orders_api"):
        first, again = post(client), post(client)

    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert first.headers["location"] == again.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert stored() == 1
    assert submitted.times == 1
    assert [record.msg for record in caplog.records] == ["order_submitted", "order_replayed"]


def test_order_without_a_key_leaves_none(client: TestClient, keys: Callable[[], int]) -> None:
    client.simulate_post("/orders", json=ORDER)

    assert keys() == 0


def test_spacing_key_order_and_digits_of_the_body_do_not_matter(client: TestClient) -> None:
    bodies = [
        amount("1"),
        amount("1.0"),
        amount("1.00"),
        amount("1e0"),
        amount("0.01E2"),
        amount("1").replace(b" ", b"\n\t  "),
        b"\xef\xbb\xbf" + amount("1"),
        b'{"total_amount": 1, "item_ids": ["tea"], "user_id": "ada"}',
        b'{"total_amount": 1, "item_ids": ["\\u0074ea"], "user_id": "\\u0061da"}',
    ]

    answers = [post(client, body) for body in bodies]

    assert [answer.status_code for answer in answers] == [201] * len(bodies)
    assert len({answer.json["order_id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    "other", [{"user_id": "bob"}, {"item_ids": ["teacup"]}, {"item_ids": ["cup", "tea"]}, {"total_amount": 1}]
)
def test_key_of_another_order_is_a_422_problem_and_places_nothing(
    client: TestClient, stored: Callable[[], int], submitted: Submitted, other: dict[str, Any]
) -> None:
    placed = post(client)

    answer = post(client, {**ORDER, **other})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == "/problems/idempotency-key-reused"
    assert answer.json.keys() == {"type", "title", "status", "detail"}
    assert placed.json["order_id"] not in answer.text
    assert stored() == 1
    assert submitted.times == 1


def test_refused_order_leaves_its_key_unused(client: TestClient, keys: Callable[[], int]) -> None:
    refused = post(client, {**ORDER, "item_ids": []})
    assert (refused.status_code, keys()) == (400, 0)

    mended = post(client)

    assert mended.status_code == 201
    assert "idempotent-replayed" not in mended.headers


@pytest.mark.parametrize(
    "key", ["0", "x" * 255, "2f1d6c0e-4b0e-4a8e-9d4a-0d6f3f1c2b3a", '"quoted"', "a;b=c", "!~-+&%s{}\\'"]
)
def test_key_is_up_to_255_visible_characters_taken_as_they_are(
    client: TestClient, connection: Connection, key: str
) -> None:
    assert post(client, key=key).status_code == 201

    assert connection.execute("SELECT idempotency_key FROM idempotency_keys").fetchall() == [(key,)]
    assert post(client, key=key).headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a b", "a\tb", "a,b", "a, a", "caf\xe9", "\x7f"])
def test_other_key_is_a_400_problem_that_names_the_header(
    client: TestClient, stored: Callable[[], int], key: str
) -> None:
    answer = post(client, key=key)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Idempotency-Key" in answer.json["detail"]
    assert "Expected it once, with 1 to 255 visible ASCII characters" in answer.json["detail"]
    assert stored() == 0


def test_repeated_key_is_refused(api: Api, stored: Callable[[], int]) -> None:
    body = json.dumps(ORDER).encode()
    connection = api.connect()
    connection.putrequest("POST", "/orders")
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.putheader("Idempotency-Key", "k")
    connection.putheader("idempotency-key", "k")
    connection.endheaders(body)
    answer = connection.getresponse()

    assert answer.status == 400
    assert b"Idempotency-Key" in answer.read()
    connection.close()
    assert stored() == 0


def test_fifty_clients_with_one_key_get_one_order(
    api: Api, stored: Callable[[], int], keys: Callable[[], int]
) -> None:
    start = threading.Barrier(50)

    def place(_: int) -> Any:
        start.wait()
        return api.call("POST", "/orders", ORDER, {"Idempotency-Key": "k"})

    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(place, range(50)))

    assert {answer.status for answer in answers} == {201}
    assert len({(answer.body, answer.headers["Location"]) for answer in answers}) == 1
    assert [answer.headers["Idempotent-Replayed"] for answer in answers].count("true") == 49
    assert (stored(), keys()) == (1, 1)


def test_duplicate_waits_for_the_first_and_gets_the_same_201(
    client: TestClient, connection: Connection, waiting: Callable[[], bool], wait_until: Callable[..., Any]
) -> None:
    with ThreadPoolExecutor(1) as thread:
        with connection.transaction():
            placed = submit_once(connection, SAME, key="k")
            duplicate = thread.submit(post, client)
            wait_until(waiting)
        answer = duplicate.result()

    assert answer.status_code == 201
    assert answer.headers["idempotent-replayed"] == "true"
    assert answer.json["order_id"] == str(placed.order_id)


def test_duplicate_of_an_order_that_is_rolled_back_places_it(
    client: TestClient,
    connection: Connection,
    stored: Callable[[], int],
    waiting: Callable[[], bool],
    wait_until: Callable[..., Any],
) -> None:
    with ThreadPoolExecutor(1) as thread:
        with connection.transaction(force_rollback=True):
            submit_once(connection, SAME, key="k")
            duplicate = thread.submit(post, client)
            wait_until(waiting)
        answer = duplicate.result()

    assert answer.status_code == 201
    assert "idempotent-replayed" not in answer.headers
    assert stored() == 1


@pytest.mark.slow
def test_duplicate_that_waits_too_long_is_a_503_that_may_be_tried_again(
    client: TestClient, connection: Connection, stored: Callable[[], int], keys: Callable[[], int]
) -> None:
    with connection.transaction():
        submit_once(connection, SAME, key="k")
        answer = post(client)

    assert answer.status_code == 503
    assert answer.json["type"] == "/problems/unavailable"
    assert answer.headers["retry-after"] == "1"
    assert (stored(), keys()) == (1, 1)
    assert post(client).headers["idempotent-replayed"] == "true"


def test_order_committed_by_an_api_that_was_killed_before_it_answered_is_not_placed_again(
    start_api: Callable[..., Any], relay: Relay, stored: Callable[[], int], wait_until: Callable[..., Any]
) -> None:
    first = start_api(relay.url)
    wait_until(lambda: first.call("GET", "/readyz").status == 200)
    relay.muted = True
    unanswered = threading.Thread(target=lose, args=(first,))
    unanswered.start()
    wait_until(lambda: stored() == 1)
    first.process.send_signal(signal.SIGKILL)
    unanswered.join()
    relay.muted = False
    second = start_api(relay.url)

    answer = second.call("POST", "/orders", ORDER, {"Idempotency-Key": "k"})

    assert answer.status == 201
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert second.call("GET", answer.headers["Location"]).status == 200
    assert stored() == 1


def lose(api: Api) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - whichever way a killed process's connection ends
        api.call("POST", "/orders", ORDER, {"Idempotency-Key": "k"})


def test_outcome_that_is_unknown_may_be_found_out_with_the_key(
    start_api: Callable[..., Any], relay: Relay, stored: Callable[[], int], wait_until: Callable[..., Any]
) -> None:
    api = start_api(relay.url)
    wait_until(lambda: api.call("GET", "/readyz").status == 200)
    relay.muted = True
    with ThreadPoolExecutor(1) as thread:
        lost = thread.submit(api.call, "POST", "/orders", ORDER, {"Idempotency-Key": "k"})
        wait_until(lambda: stored() == 1)
        relay.away()
        relay.back()

    answer = lost.result()
    assert answer.status == 503
    assert answer.json["type"] == "/problems/outcome-unknown"
    assert answer.json["detail"].endswith("sending it again with the same Idempotency-Key is safe.")
    assert answer.headers["Retry-After"] == "1"
    again = wait_until(
        lambda: (
            (found := api.call("POST", "/orders", ORDER, {"Idempotency-Key": "k"})).status == 201 and found
        )
    )
    assert again.headers["Idempotent-Replayed"] == "true"
    assert stored() == 1


def test_log_tells_replays_from_orders_and_has_no_key(api: Api, wait_until: Callable[..., Any]) -> None:
    for _ in range(2):
        api.call("POST", "/orders", ORDER, {"Idempotency-Key": "my-own-secret"})

    wait_until(lambda: "order_replayed" in api.log)
    events = re.findall(r"(order_\w+) request_id=\S+ order_id=(\S+)", api.log)
    assert [event for event, _ in events] == ["order_submitted", "order_replayed"]
    assert len({order_id for _, order_id in events}) == 1
    assert "my-own-secret" not in api.log
