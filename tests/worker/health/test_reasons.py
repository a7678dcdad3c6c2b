import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from orders_worker.attempt.pool import HandlerPool
from orders_worker.dispatch.claims import Claims
from orders_worker.dispatch.exchanger import Exchanger
from orders_worker.health.monitor import Monitor
from orders_worker.health.probes import Probes
from schema.errors import DatabaseUnavailableError, StatementRefusedError
from schema.queue.workers import Registration
from schema.runtime import driver_errors
from schema.runtime.connection import Connection
from schema.runtime.reconnecting import Reconnecting
from tests.probes import Patient, answering

THREADS = ("exchange", "heartbeat", "housekeeping")


def unavailable(words: str) -> DatabaseUnavailableError:
    """Return what `Connection.open` raises when libpq says these words."""
    return driver_errors.unavailable(psycopg.OperationalError(words))


@pytest.fixture
def patient() -> Patient:
    return Patient()


@pytest.mark.parametrize(
    ("silent", "well_for", "then"),
    [
        (("exchange",), 6.0, ["exchange_stalled"]),
        (("heartbeat",), 6.0, ["heartbeat_lost"]),
        (("housekeeping",), 6.0, ["housekeeping_lost"]),
        (("exchange", "housekeeping"), 6.0, ["exchange_stalled", "housekeeping_lost"]),
        (("heartbeat", "housekeeping"), 6.0, ["housekeeping_lost"]),
        (("rounds",), 150.0, ["rounds_stalled"]),
        (("schema",), 3600.0, []),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else None,
)
def test_what_stays_away_is_an_ailment_when_patience_is_over(
    patient: Patient, silent: tuple[str, ...], well_for: float, then: list[str]
) -> None:
    patient.lives(well_for, without=silent)
    assert patient.reasons == []

    patient.lives(0.5, without=silent)
    assert set(patient.reasons) >= set(then)

    patient.lives(0.5)
    assert patient.reasons == []


@pytest.mark.parametrize(
    ("failing", "name"),
    [
        ("exchange", "exchange_stalled"),
        ("heartbeat", "heartbeat_lost"),
        ("housekeeping", "housekeeping_lost"),
        ("connections", "no_handler_connection"),
        ("schema", "schema_unfit"),
    ],
)
def test_what_fails_for_five_seconds_is_an_ailment_that_names_the_last_error(
    patient: Patient, failing: str, name: str
) -> None:
    patient.misses(failing, unavailable("connection refused"), seconds=5)
    assert patient.reasons == []

    patient.misses(failing, unavailable("no route to host"), seconds=0.5)
    assert patient.reasons == [name]
    assert patient.logged.endswith(" s: DatabaseUnavailableError: no route to host")
    assert patient.detail.endswith(" s")

    patient.watchdogs[failing].beat()
    assert patient.reasons == []


def test_dispatcher_with_nothing_to_ask_for_is_not_missed(patient: Patient) -> None:
    patient.watchdogs["exchange"].expect(when=False)
    patient.lives(3600, without=("exchange",))
    assert patient.reasons == []

    patient.watchdogs["exchange"].expect(when=True)
    patient.lives(6, without=("exchange",))
    assert patient.reasons == []

    patient.lives(0.5, without=("exchange",))
    assert patient.reasons == ["exchange_stalled"]


def test_expecting_again_what_is_expected_already_grants_no_new_patience(patient: Patient) -> None:
    for _ in range(13):
        patient.watchdogs["exchange"].expect(when=True)
        patient.lives(0.5, without=("exchange",))

    assert patient.reasons == ["exchange_stalled"]


def test_claims_that_are_undone_are_an_ailment_until_one_succeeds_or_the_line_is_empty(
    patient: Patient,
) -> None:
    patient.watchdogs["claiming"].expect(when=True)
    patient.lives(6.5, without=("claiming",))
    assert patient.reasons == ["claims_suppressed"]

    patient.watchdogs["claiming"].expect(when=False)
    assert patient.reasons == []


def test_database_that_answers_no_thread_is_one_ailment_and_not_one_each(patient: Patient) -> None:
    patient.watchdogs["connections"].expect(when=True)
    for _ in range(80):
        for name in (*THREADS, "connections"):
            patient.watchdogs[name].fail(DatabaseUnavailableError("connection refused"))
        patient.lives(0.5, without=(*THREADS, "connections"))

    assert patient.reasons == ["database_away"]
    assert "no answer from the database for 40 s" in patient.detail
    assert "connection refused" in patient.logged


@pytest.mark.parametrize(
    ("error", "reasons"),
    [
        (psycopg.errors.DiskFull("could not extend file"), ["database_full"]),
        (
            psycopg.errors.QueryCanceled("statement timeout"),
            ["exchange_stalled", "heartbeat_lost", "housekeeping_lost"],
        ),
        (
            psycopg.errors.RaiseException("the books of May are closed"),
            ["exchange_stalled", "heartbeat_lost", "housekeeping_lost"],
        ),
        (psycopg.errors.InsufficientPrivilege("permission denied"), ["privilege_missing"]),
    ],
)
def test_database_that_answers_every_thread_with_an_error_is_not_away(
    patient: Patient, error: psycopg.Error, reasons: list[str]
) -> None:
    for _ in range(80):
        for name in THREADS:
            patient.watchdogs[name].fail(driver_errors.translated(error, closed=False))
        patient.lives(0.5, without=THREADS)

    assert patient.reasons == reasons


def test_busy_worker_whose_other_threads_get_no_answer_says_that_the_database_is_away(
    patient: Patient,
) -> None:
    patient.watchdogs["exchange"].expect(when=False)
    patient.lives(7, without=THREADS)

    assert patient.reasons == ["database_away"]


@pytest.mark.parametrize(
    "error",
    [
        driver_errors.translated(
            psycopg.errors.ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction"),
            closed=True,
        ),
        unavailable('connection to server at "db", port 5432 failed: session is read-only'),
        unavailable(
            "connection failed: Multiple connection attempts failed. All failures were:\n"
            '- host: "a", port: 5432: connection failed: session is read-only\n'
            '- host: "b", port: 5432: connection refused'
        ),
    ],
    ids=["statement", "connection", "connection to one of two"],
)
def test_read_only_server_is_named_whatever_it_keeps_from_working(patient: Patient, error: Exception) -> None:
    patient.misses("exchange", error, seconds=6)
    assert patient.reasons == ["database_read_only"]

    for name in THREADS:
        patient.watchdogs[name].fail(error)
    assert patient.reasons == ["database_read_only"]


@pytest.mark.parametrize(
    "error",
    [
        driver_errors.translated(
            psycopg.errors.RaiseException("the books of May: session is read-only"), closed=False
        ),
        unavailable('could not open "/etc/read-only/client.key"'),
        DatabaseUnavailableError("session is read-only"),
    ],
    ids=["a trigger's words", "a file's name", "nobody's word"],
)
def test_error_that_has_read_only_among_its_words_is_no_sign_of_a_read_only_server(
    patient: Patient, error: Exception
) -> None:
    patient.misses("exchange", error, seconds=6)

    assert patient.reasons == ["exchange_stalled"]


def test_turn_after_a_rest_awaits_an_answer_before_it_uses_its_connection() -> None:
    expected = []

    def connect() -> Connection:
        expected.append(not exchanger.watchdog.resting)
        raise DatabaseUnavailableError

    unused: Any = None
    claims = Claims(Registration("w", datetime.now(UTC)))
    exchanger = Exchanger(claims, unused, url="", settings=unused, register=unused)
    exchanger.database = Reconnecting(connect, name="test", ceiling_seconds=2)
    exchanger.watchdog.expect(when=False)

    exchanger.turn(lambda: 0)

    assert expected == [True]
    assert isinstance(exchanger.watchdog.error, DatabaseUnavailableError)


def test_pool_of_connections_is_at_rest_unless_somebody_waits_for_one(
    database_url: str, wait_until: Callable[..., Any]
) -> None:
    connections = HandlerPool(database_url, size=1, lease_seconds=10, timeout_seconds=10)
    assert connections.watchdog.resting
    lent = connections.check_out(wanted=lambda: True)
    assert connections.watchdog.resting

    with ThreadPoolExecutor() as handlers:
        waiting = handlers.submit(connections.check_out, wanted=lambda: True)
        wait_until(lambda: not connections.watchdog.resting)
        connections.check_in(lent)
        again = waiting.result()

    assert connections.watchdog.resting
    again.end().close()


def test_watch_names_the_worker_that_is_meant_also_when_it_goes_on_under_another_id(
    patient: Patient, wait_until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[Any]:
        return [(record.msg, vars(record)["fields"].get("worker_id")) for record in caplog.records]

    worker_id = "w-1"
    patient.lives(7, without=("exchange",))
    with caplog.at_level("INFO", "orders_worker"):
        monitor = Monitor(patient.health, probes=None, worker_id=lambda: worker_id)
        monitor.loop.start()
        wait_until(lambda: told() == [("worker_unhealthy", "w-1")])
        worker_id = "w-2"
        patient.lives(0.5)
        wait_until(lambda: told()[1:] == [("worker_healthy", "w-2")])
        monitor.loop.stop()


@pytest.fixture
def probes(patient: Patient) -> Iterator[Probes]:
    with answering(patient) as server:
        yield server


@pytest.fixture
def served(probes: Probes) -> Callable[..., tuple[int, str, Any]]:
    """Ask the probes; returns status, media type and document."""

    def ask(path: str, method: str = "GET") -> tuple[int, str, Any]:
        with closing(http.client.HTTPConnection(probes.url.removeprefix("http://"), timeout=10)) as client:
            client.request(method, path)
            answer = client.getresponse()
            body = answer.read()
            return answer.status, answer.headers["content-type"], json.loads(body) if body else None

    return ask


@pytest.fixture
def sent(probes: Probes) -> Callable[[bytes], bytes]:
    """Send bytes to the probes; returns what comes until they hang up."""

    def send(request: bytes) -> bytes:
        host, port = probes.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(request)
            return b"".join(iter(lambda: raw.recv(65536), b""))

    return send


def test_probes_say_yes_while_nothing_ails(served: Any) -> None:
    assert served("/healthz") == (200, "application/json", {"status": "up"})
    assert served("/readyz") == (200, "application/json", {"status": "ready"})
    assert served("/readyz", "HEAD")[0] == 200


def test_worker_that_gets_nowhere_is_up_but_not_ready_for_these_reasons(
    served: Any, patient: Patient
) -> None:
    patient.lives(7, without=("exchange", "housekeeping"))

    status, media_type, problem = served("/readyz")

    assert served("/healthz")[0] == 200
    assert (status, media_type) == (503, "application/problem+json")
    assert problem == {
        "type": "/problems/not-ready",
        "title": "Not ready",
        "status": 503,
        "detail": "nothing could be claimed or completed for 7 s; "
        "no wake-up was heard and nothing rescued for 7 s",
        "reasons": ["exchange_stalled", "housekeeping_lost"],
    }


def test_words_of_an_error_are_for_the_log_and_not_for_whoever_asks(served: Any, patient: Patient) -> None:
    patient.misses("exchange", StatementRefusedError("RaiseException: no tea for ada"), seconds=6)
    assert patient.logged == (
        "nothing could be claimed or completed for 6 s: StatementRefusedError: RaiseException: no tea for ada"
    )

    assert served("/readyz")[2] == {
        "type": "/problems/not-ready",
        "title": "Not ready",
        "status": 503,
        "detail": "nothing could be claimed or completed for 6 s",
        "reasons": ["exchange_stalled"],
    }


@pytest.mark.parametrize("silent", [("rounds",), ("rounds", *THREADS)], ids=["alone", "database away too"])
def test_worker_whose_main_loop_stands_still_is_not_up(
    served: Any, patient: Patient, silent: tuple[str, ...]
) -> None:
    patient.lives(151, without=silent)

    assert served("/healthz")[0] == served("/readyz")[0] == 503


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/", "GET", 404), ("/orders", "GET", 404), ("/readyz/", "GET", 404), ("/readyz", "POST", 405)],
)
def test_other_requests_are_answered_with_problems(served: Any, path: str, method: str, status: int) -> None:
    found, media_type, problem = served(path, method)

    assert (found, media_type) == (status, "application/problem+json")
    assert problem["status"] == status
    assert set(problem) == {"type", "title", "status", "detail"}


@pytest.mark.parametrize("path", ["/readyz", "/healthz", "/nope"])
def test_head_is_the_head_of_get_alone_and_the_next_answer_comes_right_after(
    sent: Callable[[bytes], bytes], patient: Patient, path: str
) -> None:
    patient.lives(7, without=("exchange",))
    ask = f"{{}} {path} HTTP/1.1\r\nHost: h\r\n{{}}\r\n"
    last = "Connection: close\r\n"

    answers = sent((ask.format("HEAD", "") + ask.format("GET", last)).encode())
    alone = sent(ask.format("GET", last).encode())

    head, _, rest = answers.partition(b"\r\n\r\n")
    assert re.sub(rb"\r\nDate: .*", b"", rest) == re.sub(rb"\r\nDate: .*", b"", alone)
    assert re.search(rb"Content-Length: [1-9]\d+", head)
    assert re.findall(rb"Content-Length: .*", head) == re.findall(rb"Content-Length: .*", alone)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /readyz HTTP/1.1\r\nHost: h\r\nContent-Length: " + b"9" * 5000,
        b"GET http://[/readyz HTTP/1.1\r\nHost: h",
    ],
    ids=["length of 5,000 digits", "half an address"],
)
def test_head_that_python_can_not_convert_is_a_bad_request(
    sent: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture, head: bytes
) -> None:
    assert sent(head + b"\r\n\r\n").startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert caplog.records == []
