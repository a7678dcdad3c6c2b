"""Whatever comes in is an order, stored whole and as it was sent, or is refused with a problem."""

import json
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from falcon.testing import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orders_api.database.pool import Database
from schema.runtime.connection import Connection
from tests.api.conftest import Api

pytestmark = pytest.mark.proof

# One application and database for all examples of a test: each looks at what is there before and after.
FUZZ = settings(
    max_examples=150,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
REFUSALS = {400, 404, 405, 413, 415, 422}
JSON = {"Content-Type": "application/json"}

# What comes in through json.dumps may be any character, lone surrogates and NUL too.
characters = st.characters(exclude_categories=())
numbers = (
    st.from_regex(r"-?(0|[1-9][0-9]{0,13})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
    | st.integers().map(str)
    | st.floats().map(json.dumps)
    | st.sampled_from(["9" * 5000, "1e999999999", "1e-999999999", "1" + "0" * 400 + "e-400", "-0", "0e-99"])
)
words = st.text(characters, max_size=300).map(json.dumps)
scalars = words | numbers | st.sampled_from(["true", "false", "null"])


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=5).map(lambda found: f"[{', '.join(found)}]")


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Write objects as text, so that a key may come twice."""
    members = st.tuples(fields | words, values).map(": ".join)
    return st.lists(members, max_size=5).map(lambda found: f"{{{', '.join(found)}}}")


fields = st.sampled_from(['"user_id"', '"item_ids"', '"total_amount"'])
values = st.recursive(scalars, lambda inner: arrays(inner) | objects(inner), max_leaves=12)
nested = st.tuples(st.sampled_from(["[", '{"a":', '{"user_id":[']), st.integers(1, 3000)).map(
    lambda found: found[0] * found[1]
)

ids = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=255)
names = ids.filter(str.strip)
odd = st.sampled_from(["\0", "\ud800", "\udfff", "\udc00\ud800", " ", "x" * 255])
cents = st.integers(0, 99_999_999_999_999)


@st.composite
def amounts(draw: st.DrawFn) -> str:
    """Write an amount in one of the many ways there are."""
    amount = Decimal(draw(cents)).scaleb(-2)
    return draw(
        st.sampled_from([str(amount), f"{amount:e}", f"{amount.normalize():E}", f"{amount.normalize():f}"])
    )


@st.composite
def orders(draw: st.DrawFn) -> dict[str, str]:
    """Write a good order, member by member."""
    ascii_only = draw(st.booleans())
    return {
        "user_id": json.dumps(draw(names), ensure_ascii=ascii_only),
        "item_ids": json.dumps(draw(st.lists(names, min_size=1, max_size=20)), ensure_ascii=ascii_only),
        "total_amount": draw(amounts()),
    }


def written(members: dict[str, str]) -> bytes:
    return ("{" + ",".join(f'"{name}": {value}' for name, value in members.items()) + "}").encode()


@st.composite
def bent_orders(draw: st.DrawFn) -> bytes:
    """Write a good order, then change a member, a key, a character or some bytes."""
    members = draw(orders())
    match draw(st.sampled_from(["value", "character", "member", "key", "twice", "bytes"])):
        case "value":
            members[draw(st.sampled_from(sorted(members)))] = draw(values)
        case "character":
            strange = json.dumps(draw(names) + draw(odd))
            members |= draw(st.sampled_from([{"user_id": strange}, {"item_ids": f"[{strange}]"}]))
        case "member":
            del members[draw(st.sampled_from(sorted(members)))]
        case "key":
            return written(members)[:-1] + f",{draw(fields | words)}: {draw(values)}}}".encode()
        case "twice":
            return written(members)[:-1] + b"," + written(members)[1:]
    body = written(members)
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 2)) :]


bodies = (
    st.binary(max_size=300)
    | values.map(str.encode)
    | nested.map(str.encode)
    | orders().map(written)
    | bent_orders()
)
batches = bodies | st.lists(orders().map(written) | bent_orders(), min_size=1, max_size=4).map(
    lambda found: b'{"orders": [' + b", ".join(found) + b"]}"
)
latin = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=300)
known = ["Accept", "Content-Encoding", "Cookie", "Expect", "Forwarded", "Host", "If-None-Match", "Range"]
known += ["Transfer-Encoding", "X-Forwarded-Host", "X-HTTP-Method-Override", "X-Request-ID"]
headers = st.dictionaries(
    st.sampled_from(known) | st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True), latin, max_size=4
)
keys = latin | st.from_regex(r"[!-~]{1,255}", fullmatch=True) | st.sampled_from([" ", "a,a", "k" * 256])


def assert_problem(answer: Any) -> None:
    assert answer.status_code in REFUSALS
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == answer.status_code
    assert all(isinstance(answer.json[each], str) for each in ("type", "title", "detail"))


def sent(body: bytes) -> tuple[Any, ...]:
    """Read an accepted order as another reader would."""
    members = json.loads(
        body.decode("utf-8-sig"), parse_float=Decimal, parse_int=Decimal, object_pairs_hook=list
    )
    order = dict(members)
    assert order.keys() == {"user_id", "item_ids", "total_amount"}
    assert len(members) == 3  # each once
    return order["user_id"], order["item_ids"], order["total_amount"]


STORED = "SELECT order_id::text, user_id, item_ids, total_amount, status FROM orders"


class Counted:
    """Posts, and compares what was answered with what was stored."""

    def __init__(self, client: TestClient, connection: Connection) -> None:
        self._client = client
        self._connection = connection

    def post(self, body: bytes, headers: dict[str, str]) -> Any:
        self._connection.execute("TRUNCATE orders, idempotency_keys")
        answer = self._client.simulate_post("/orders", body=body, headers=headers)
        rows = self._connection.execute(STORED).fetchall()
        keyed = self._connection.execute("SELECT idempotency_key, order_id::text FROM idempotency_keys")
        if answer.status_code == 201:
            assert rows == [(answer.json["order_id"], *sent(body), "pending")]
            # Blanks around it are no part of a header's value.
            given = [value.strip() for name, value in headers.items() if name.lower() == "idempotency-key"]
            assert keyed.fetchall() == [(key, answer.json["order_id"]) for key in given]
        else:
            assert_problem(answer)
            assert rows == keyed.fetchall() == []
        return answer


@pytest.fixture
def client(client: TestClient, database: Database) -> TestClient:
    # While it connects the pool draws random numbers, which Hypothesis would take for a strategy's.
    database._pool.wait()
    return client


@pytest.fixture
def counted(client: TestClient, connection: Connection) -> Counted:
    return Counted(client, connection)


@FUZZ
@given(bodies)
@example(b"[" * 1_000_000)
@example(b'{"user_id": "\\ud800", "item_ids": ["tea"], "total_amount": 1}')
@example(b'{"user_id": "ada", "item_ids": ["tea\\u0000"], "total_amount": 1}')
@example(b'{"user_id": "ada", "item_ids": ["tea"], "total_amount": %s}' % (b"9" * 1_000_000))
def test_any_body_is_an_order_stored_as_sent_or_a_problem(counted: Counted, body: bytes) -> None:
    counted.post(body, JSON)


@FUZZ
@given(orders())
def test_good_order_is_stored_to_the_last_character_and_cent(
    counted: Counted, members: dict[str, str]
) -> None:
    assert counted.post(written(members), JSON).status_code == 201


@FUZZ
@given(orders().map(written) | bent_orders(), headers, latin | st.just("application/json"))
def test_any_headers_are_taken_or_refused_with_a_problem(
    counted: Counted, body: bytes, others: dict[str, str], content_type: str
) -> None:
    counted.post(body, {**others, "Content-Type": content_type})


@FUZZ
@given(orders().map(written) | bent_orders(), keys)
def test_any_idempotency_key_is_taken_as_it_is_or_refused_with_a_problem(
    counted: Counted, client: TestClient, body: bytes, key: str
) -> None:
    named = {**JSON, "Idempotency-Key": key}

    answer = counted.post(body, named)
    again = client.simulate_post("/orders", body=body, headers=named)

    assert again.status_code == answer.status_code
    if answer.status_code == 201:
        assert again.content == answer.content
        assert again.headers["idempotent-replayed"] == "true"


@FUZZ
@given(batches)
@example(b'{"orders": ' + b"[" * 1_000_000)
def test_any_batch_is_stored_whole_and_as_sent_or_refused_with_a_problem(
    client: TestClient, connection: Connection, body: bytes
) -> None:
    connection.execute("TRUNCATE orders")
    answer = client.simulate_post("/orders/batch", body=body, headers=JSON)
    rows = connection.execute(f"{STORED} ORDER BY seq").fetchall()

    if answer.status_code == 201:
        found = json.loads(body.decode("utf-8-sig"), parse_float=Decimal, parse_int=Decimal)
        members = [(each["user_id"], each["item_ids"], each["total_amount"]) for each in found["orders"]]
        assert [row[1:4] for row in rows] == members
        assert [row[0] for row in rows] == answer.json["order_ids"]
    else:
        assert_problem(answer)
        assert rows == []


near_uuids = st.tuples(st.uuids().map(str), st.integers(0, 36), latin.map(lambda text: text[:2])).map(
    lambda found: found[0][: found[1]] + found[2] + found[0][found[1] + 1 :]
)


@FUZZ
@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
    st.sampled_from(["/orders/", "/orders", "/metrics", "/"]),
    st.binary(max_size=40) | st.uuids().map(lambda found: str(found).encode()) | near_uuids.map(str.encode),
    latin,
    headers,
)
def test_any_address_is_answered_or_refused_with_a_problem(
    client: TestClient, method: str, folder: str, name: bytes, query: str, headers: dict[str, str]
) -> None:
    address = folder + quote(name, safe="/")

    answer = client.simulate_request(method, address, query_string=quote(query, safe="&=+%"), headers=headers)

    if answer.status_code != 200:
        assert answer.status_code in REFUSALS
        assert answer.headers["content-type"] == "application/problem+json"
        assert method == "HEAD" or answer.json["status"] == answer.status_code


# Past the application: bytes on a socket


GOOD = b'{"user_id": "ada", "item_ids": ["tea"], "total_amount": 1}'
POST = (
    b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Idempotency-Key: k\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD)
)
# Ends every request that is not yet whole, and then the connection.
THE_END = b"\r\n\r\n0\r\n\r\n" + 4 * b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

lines = st.sampled_from([b"POST /orders HTTP/1.1", b"GET /metrics HTTP/1.0", b"PRI * HTTP/2.0"]) | st.tuples(
    st.sampled_from([b"GET", b"POST", b"PUT", b"get", b"X-Y", b""]) | st.binary(max_size=5),
    st.sampled_from([b"/", b"/orders", b"*", b"http://[::1", b"//x:y@z:q/", b"/%zz%00?%ff"])
    | st.binary(max_size=20),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b""]) | st.binary(max_size=5),
).map(b" ".join)
fields_sent = st.sampled_from(
    [
        b"Content-Type: application/json",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Expect: 100-continue",
        b"Connection: keep-alive",
        b"Content-Length: 58",
        b"Content-Length: 7",
        b"Content-Length: +7",
        b"Content-Length: -1",
        b"Content-Length: " + b"9" * 5000,
        b"Host: [",
        b" folded",
    ]
) | st.tuples(
    st.sampled_from([b"Idempotency-Key", b"X-Request-ID", b"A", b"Host"]), st.binary(max_size=30)
).map(b": ".join)
contents = st.sampled_from([GOOD, b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD), b"-1\r\n", b"7;x=y\r\n"])
hosts = st.sampled_from([[b"Host: x"], [b"Host: x"], []])
requests = st.tuples(lines, hosts, st.lists(fields_sent, max_size=5), contents | st.binary(max_size=60)).map(
    lambda found: b"\r\n".join([found[0], *found[1], *found[2], b"", found[3]])
)


def answers(received: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
        assert status, received
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        size = int(length[1]) if length else 0
        yield int(status[1]), head, rest[:size]
        received = rest[size:]


def assert_unbroken(api: Api) -> None:
    assert api.call("GET", "/healthz").status == 200
    assert api.stop() == 0
    assert "Traceback" not in api.log
    assert "ERROR" not in api.log
    assert "WARNING" not in api.log


def test_any_bytes_are_answered_as_http_or_refused_with_a_problem(api: Api) -> None:
    @FUZZ
    @given(st.lists(requests | st.just(POST) | st.binary(max_size=100), min_size=1, max_size=3))
    @example([b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000])
    @example([b"GET http://[::1 HTTP/1.1\r\nHost: x"])
    def speak(pieces: list[bytes]) -> None:
        with socket.create_connection(("127.0.0.1", api.port), timeout=1) as raw:
            with suppress(ConnectionError):  # refused, and closed before it was all sent
                for piece in (*pieces, THE_END):
                    raw.sendall(piece)
            received = b""
            with suppress(ConnectionError, TimeoutError):  # or it waits for all of a long body
                while piece := raw.recv(65536):
                    received += piece
        for status, head, body in answers(received):
            assert status in {100, 200, 201, 501} | REFUSALS
            if status >= 400:
                assert b"Content-Type: application/problem+json" in head
                assert json.loads(body)["status"] == status

    speak()

    assert_unbroken(api)


def test_client_that_hangs_up_early_has_placed_nothing(api: Api, stored: Callable[[], int]) -> None:
    @FUZZ
    @given(st.integers(0, len(POST) - 1), st.booleans())
    def hang_up(after: int, rudely: bool) -> None:  # noqa: FBT001 - Hypothesis takes no keyword-only ones
        with socket.create_connection(("127.0.0.1", api.port), timeout=30) as raw:
            if rudely:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.sendall(POST[:after])

    hang_up()

    assert_unbroken(api)
    assert stored() == 0
