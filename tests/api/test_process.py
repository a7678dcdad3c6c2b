"""A real orders-api process, over real sockets."""

import http.client
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schema import migrate
from schema.embedded.server import Server
from schema.runtime.connection import Connection
from tests.api.conftest import Api, Relay
from tests.servers import temporary_server

ORDER: dict[str, Any] = {"user_id": "ada", "item_ids": ["tea", "cup"], "total_amount": 250.75}
MEBIBYTE = 1024 * 1024


def exchange(api: Api, *pieces: bytes) -> bytes:
    """Send raw bytes, then read until the server closes."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as raw:
        for piece in pieces:
            raw.sendall(piece)
        return b"".join(iter(lambda: raw.recv(65536), b""))


def test_original_services_three_calls_work(api: Api) -> None:
    placed = api.post(ORDER)
    found = api.call("GET", f"/orders/{placed.json['order_id']}")
    metrics = api.call("GET", "/orders/metrics")

    assert placed.status == 201
    assert placed.json["message"] == "Order placed successfully"
    assert UUID(placed.json["order_id"])
    assert found.status == 200
    assert found.json["status"] == "Pending"
    assert metrics.json["total_orders"] == 1
    assert metrics.json["status_counts"]["pending_orders"] == 1
    assert metrics.json["average_processing_time"] == 0
    assert metrics.json["estimated_processing_time"] == 2


def test_console_script_serves_too(start_api: Callable[..., Any], database_url: str) -> None:
    api = start_api(database_url, command=[str(Path(sys.executable).with_name("orders-api"))])

    assert api.call("GET", "/healthz").status == 200


def test_simulated_seconds_are_what_an_order_is_taken_to_need(
    start_api: Callable[..., Any], database_url: str
) -> None:
    api = start_api(database_url, ORDERS_SIMULATED_SECONDS="30")
    api.post(ORDER)

    assert api.call("GET", "/metrics").json["estimated_processing_time"] == 30


def test_answers_do_not_name_the_server_software(api: Api) -> None:
    assert api.call("GET", "/healthz").headers["Server"] is None


def test_request_id_comes_back_and_is_in_the_log(api: Api, wait_until: Callable[..., Any]) -> None:
    placed = api.call("POST", "/orders", ORDER, {"X-Request-ID": "my-id-1"})

    assert placed.headers["X-Request-ID"] == "my-id-1"
    wait_until(lambda: f"order_submitted request_id=my-id-1 order_id={placed.json['order_id']}" in api.log)
    assert not re.search(r"\bada\b", api.log)


def test_log_can_be_json_lines(
    start_api: Callable[..., Any], database_url: str, wait_until: Callable[..., Any]
) -> None:
    api = start_api(database_url, ready=False, ORDERS_LOG_FORMAT="json")

    (line,) = wait_until(lambda: [line for line in api.lines if "api_started" in line])

    assert json.loads(line).keys() == {"time", "level", "event", "url"}


def test_chunked_body_is_read(api: Api, stored: Callable[[], int]) -> None:
    body = json.dumps(ORDER).encode()
    half = len(body) // 2
    connection = api.connect()
    connection.request(
        "POST",
        "/orders",
        iter([body[:half], body[half:]]),
        {"Content-Type": "application/json"},
        encode_chunked=True,
    )
    answer = connection.getresponse()

    assert answer.status == 201
    answer.read()
    connection.close()
    assert stored() == 1


def test_client_that_sends_a_body_past_the_limit_to_its_end_reads_413_and_may_go_on(
    api: Api, stored: Callable[[], int]
) -> None:
    connection = api.connect()
    for size in (MEBIBYTE + 1, 15 * MEBIBYTE):
        connection.request("POST", "/orders", b" " * size, {"Content-Type": "application/json"})
        answer = connection.getresponse()

        assert answer.status == 413
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert json.loads(answer.read())["status"] == 413
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    assert stored() == 0


def test_chunked_body_past_the_limit_is_413(api: Api, stored: Callable[[], int]) -> None:
    connection = api.connect()
    pieces = (b" " * 65536 for _ in range(32))
    connection.request("POST", "/orders", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
    answer = connection.getresponse()
    answer.read()
    connection.close()

    assert answer.status == 413
    assert stored() == 0


def test_what_the_server_refuses_before_the_application_is_a_problem_too(api: Api) -> None:
    refused = {
        b"GARBAGE\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: h\r\nbad header\r\n\r\n": 400,
        b"POST /orders HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n": 400,
        b"POST /orders HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n": 413,
        b"GET / HTTP/1.1\r\nHost: h\r\nX: ".ljust(65536, b"x"): 431,
        b"POST /orders HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n": 501,
    }
    for sent, status in refused.items():
        head, _, body = exchange(api, sent).partition(b"\r\n\r\n")

        problem = json.loads(body)
        assert re.match(rb"HTTP/1\.\d %d " % status, head)
        assert b"Content-Type: application/problem+json" in head
        assert b"X-Request-Id: " in head
        assert problem["status"] == status
        assert problem.keys() >= {"type", "title", "detail"}


def test_client_that_hangs_up_leaves_no_traceback(api: Api) -> None:
    body = json.dumps(ORDER).encode()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", api.port)) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.sendall(b"POST /orders HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n")
            raw.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)

    assert api.call("GET", "/healthz").status == 200
    assert api.stop() == 0
    assert "Traceback" not in api.log


def test_many_requests_at_once_do_not_flood_the_log(api: Api) -> None:
    threads = [threading.Thread(target=api.call, args=("GET", "/metrics")) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert api.stop() == 0
    assert [line.split()[2] for line in api.lines] == ["api_started", "api_stopped"]


@pytest.mark.direct("LISTEN")
def test_placed_order_wakes_listening_workers(api: Api, connection: Connection) -> None:
    connection.execute("LISTEN orders")

    api.post(ORDER)

    assert any(True for _ in connection.notifies(timeout=30, stop_after=1))


# Settings


@pytest.mark.parametrize(("name", "value"), [("ORDERS_PORT", "x"), ("ORDERS_HOST", "192.0.2.1")])
def test_bad_setting_ends_the_process_with_one_line_that_names_it(
    start_api: Callable[..., Any], name: str, value: str
) -> None:
    # No database is needed to find out.
    api = start_api("host=/nonexistent", ready=False, **{name: value})

    assert api.wait() == 2
    (line,) = api.lines
    assert line.startswith(f"{name} is {value!r}: ")


def test_bad_database_url_is_not_repeated(start_api: Callable[..., Any]) -> None:
    api = start_api("postgresql://ada:s3cret@[", ready=False)

    assert api.wait() == 2
    (line,) = api.lines
    assert line.startswith("DATABASE_URL")
    assert "s3cret" not in line


def test_port_in_use_ends_the_process_with_a_line_that_names_it(start_api: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        api = start_api("host=/nonexistent", ready=False, ORDERS_PORT=port)

        assert api.wait() == 2
    (line,) = api.lines
    assert line == f"ORDERS_PORT is '{port}': the port is in use on 127.0.0.1"


def test_second_api_on_the_same_port_does_not_start(start_api: Callable[..., Any], database_url: str) -> None:
    first = start_api(database_url)

    second = start_api(database_url, ready=False, ORDERS_PORT=str(first.port))

    assert second.wait() == 2
    assert "ORDERS_PORT" in second.log
    assert first.call("GET", "/healthz").status == 200


def test_unmigrated_database_ends_the_process_and_names_the_command(
    start_api: Callable[..., Any], empty_database_url: str
) -> None:
    api = start_api(empty_database_url, ready=False)

    assert api.wait() == 1
    (line,) = api.lines
    assert "orders migrate" in line


# The database goes away


def test_process_started_before_the_database_waits_for_it_and_says_so_once(
    start_api: Callable[..., Any], relay: Relay, wait_until: Callable[..., Any]
) -> None:
    relay.away()
    api = start_api(relay.url, ready=False)
    wait_until(lambda: "waiting for the database" in api.log)

    relay.back()

    wait_until(lambda: api.port)
    assert api.log.count("waiting for the database") == 1
    assert api.post(ORDER).status == 201


@pytest.mark.slow
def test_process_whose_database_never_comes_gives_up(start_api: Callable[..., Any], relay: Relay) -> None:
    relay.away()
    api = start_api(relay.url, ready=False)

    assert api.wait() == 1
    assert len(api.lines) == 2
    assert "Traceback" not in api.log


def test_database_that_goes_away_is_a_503_until_it_is_back(
    start_api: Callable[..., Any], relay: Relay, stored: Callable[[], int], wait_until: Callable[..., Any]
) -> None:
    api = start_api(relay.url)
    assert api.post(ORDER).status == 201

    relay.away()
    placed, found, ready = api.post(ORDER), api.call("GET", "/metrics"), api.call("GET", "/readyz")
    alive = api.call("GET", "/healthz")

    for answer in (placed, found, ready):
        assert answer.status == 503
        assert answer.json["type"] == "/problems/unavailable"
        assert answer.headers["Retry-After"] == "1"
    assert alive.status == 200
    assert stored() == 1
    relay.back()
    wait_until(lambda: api.post(ORDER).status == 201)
    assert stored() == 2
    assert api.stop() == 0
    events = [line.split()[2] for line in api.lines]
    assert events.count("database_unavailable") == events.count("database_available") == 1
    assert set(events) <= {
        "api_started", "order_submitted", "statement_failed", "submit_outcome_unknown",
        "database_unavailable", "database_available", "connection_lost", "connection_back", "api_stopped",
    }  # fmt: skip


def test_restart_of_the_server_under_load_gives_503_at_worst_and_loses_nothing(
    start_api: Callable[..., Any], relay: Relay, connection: Connection, wait_until: Callable[..., Any]
) -> None:
    api = start_api(relay.url)
    answers: list[Any] = []
    done = threading.Event()

    def client() -> None:
        while not done.is_set():
            answers.append(api.post(ORDER))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        seen = len(answers)
        wait_until(lambda seen=seen: sum(each.status == 201 for each in answers[seen:]) >= 20)
        relay.away()
        seen = len(answers)
        wait_until(lambda seen=seen: any(each.status == 503 for each in answers[seen:]))
        relay.back()
    seen = len(answers)
    wait_until(lambda: sum(each.status == 201 for each in answers[seen:]) >= 20)
    done.set()
    for thread in threads:
        thread.join()

    assert {answer.status for answer in answers} == {201, 503}
    acknowledged = {answer.json["order_id"] for answer in answers if answer.status == 201}
    unknown = [answer for answer in answers if answer.json.get("type") == "/problems/outcome-unknown"]
    stored = {str(row[0]) for row in connection.execute("SELECT order_id FROM orders")}
    assert acknowledged <= stored
    assert len(stored - acknowledged) <= len(unknown)


@pytest.fixture
def own_server(store: Path) -> Iterator[Server]:
    with temporary_server(store=store) as server:
        yield server


@pytest.mark.slow
def test_real_restart_and_crash_of_the_server_are_survived(
    start_api: Callable[..., Any], own_server: Server, wait_until: Callable[..., Any]
) -> None:
    url = own_server.ensure_running()
    migrate.upgrade(url)
    api = start_api(url)
    placed = [api.post(ORDER)]

    for mode in ("fast", "immediate"):
        own_server.stop(mode)
        assert api.post(ORDER).status == 503
        assert api.call("GET", "/readyz").status == 503
        own_server.ensure_running()
        placed.append(wait_until(lambda: (answer := api.post(ORDER)).status == 201 and answer))

    for answer in placed:
        assert api.call("GET", answer.headers["Location"]).status == 200
    assert api.process.poll() is None


@pytest.mark.slow
def test_post_whose_reply_never_comes_says_that_its_outcome_is_unknown(
    start_api: Callable[..., Any], relay: Relay, stored: Callable[[], int]
) -> None:
    api = start_api(relay.url)
    api.post(ORDER)

    relay.muted = True
    answer = api.post(ORDER)

    assert answer.status == 503
    assert answer.json["type"] == "/problems/outcome-unknown"
    assert answer.headers["Retry-After"] is None
    assert stored() == 2


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_an_idle_process_with_status_0(api: Api, number: int) -> None:
    assert api.stop(number) == 0
    assert "api_stopped" in api.lines[-1]


def test_idle_keep_alive_connection_does_not_hold_up_the_stop(api: Api) -> None:
    connection = api.connect()
    connection.request("GET", "/healthz")
    connection.getresponse().read()

    assert api.stop() == 0
    connection.close()


def test_sigint_ends_a_background_job_whose_shell_ignores_it(
    start_api: Callable[..., Any], database_url: str
) -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        " os.execv(sys.executable, sys.argv[1:])"
    )
    api = start_api(
        database_url, command=[sys.executable, "-c", ignoring, sys.executable, "-m", "orders_api"]
    )

    assert api.stop(signal.SIGINT) == 0


def test_signal_while_waiting_for_the_database_ends_the_process(
    start_api: Callable[..., Any], relay: Relay, wait_until: Callable[..., Any]
) -> None:
    relay.away()
    api = start_api(relay.url, ready=False)
    wait_until(lambda: "waiting for the database" in api.log)

    assert api.stop() == 0
    assert "Traceback" not in api.log


def test_request_in_flight_gets_its_answer_after_the_signal(
    api: Api, connection: Connection, connect: Callable[[], Connection], wait_until: Callable[..., Any]
) -> None:
    answers: list[Any] = []
    with connection.transaction():
        connection.execute("LOCK TABLE orders")
        threads = [threading.Thread(target=lambda: answers.append(api.post(ORDER))) for _ in range(4)]
        for thread in threads:
            thread.start()
        watcher = connect()
        wait_until(lambda: _waiting_for_a_lock(watcher) == 4)
        # Twice, as from make and a terminal: that is no impatience.
        api.process.send_signal(signal.SIGTERM)
        api.process.send_signal(signal.SIGINT)
        wait_until(lambda: _refuses(api.port))
    for thread in threads:
        thread.join()

    assert [answer.status for answer in answers] == [201] * 4
    assert {answer.headers["Connection"] for answer in answers} == {"close"}
    assert api.wait() == 0


def _waiting_for_a_lock(watcher: Connection) -> int:
    row = watcher.execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    ).fetchone()
    assert row is not None
    return int(row[0])


def has_ended_after_one_more_signal(api: Api) -> bool:
    api.process.send_signal(signal.SIGTERM)
    return api.process.poll() is not None


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def test_every_order_acknowledged_under_a_stop_is_stored_and_no_answer_is_cut_off(
    api: Api, connection: Connection, wait_until: Callable[..., Any]
) -> None:
    acknowledged: list[str] = []
    cut_off: list[bytes] = []
    body = json.dumps(ORDER).encode()
    request = (
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    )

    def client() -> None:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", api.port), timeout=30) as raw:
                    raw.sendall(request % (len(body), body))
                    answer = b""
                    while not answer.endswith(b"}") and (piece := raw.recv(65536)):
                        answer += piece
            except OSError:
                return
            if answer and not answer.endswith(b"}"):
                cut_off.append(answer)
            elif answer:
                acknowledged.append(json.loads(answer.partition(b"\r\n\r\n")[2])["order_id"])

    threads = [threading.Thread(target=client) for _ in range(16)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acknowledged) > 100)
    assert api.stop() == 0
    for thread in threads:
        thread.join()

    stored = {str(row[0]) for row in connection.execute("SELECT order_id FROM orders")}
    assert set(acknowledged) == stored
    assert not cut_off


def test_requests_that_arrived_before_the_signal_are_answered_though_not_yet_accepted(
    api: Api, stored: Callable[[], int]
) -> None:
    api.process.send_signal(signal.SIGSTOP)
    connections = [api.connect() for _ in range(8)]
    for connection in connections:
        connection.request("POST", "/orders", json.dumps(ORDER), {"Content-Type": "application/json"})
    api.process.send_signal(signal.SIGTERM)
    api.process.send_signal(signal.SIGCONT)

    answers = [connection.getresponse() for connection in connections]
    for answer, connection in zip(answers, connections, strict=True):
        answer.read()
        connection.close()

    assert [answer.status for answer in answers] == [201] * 8
    assert api.wait() == 0
    assert stored() == 8


@pytest.mark.slow
def test_client_that_never_finishes_its_request_is_given_up(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port)) as raw:
        raw.sendall(b"POST /orders HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n")
        assert api.call("GET", "/healthz").status == 200

        assert api.stop() == 0


def test_second_signal_after_a_second_gives_up_at_once(
    api: Api, connection: Connection, connect: Callable[[], Connection], wait_until: Callable[..., Any]
) -> None:
    def post() -> None:
        with pytest.raises((OSError, http.client.HTTPException)):
            api.post(ORDER)

    with connection.transaction():
        connection.execute("LOCK TABLE orders")
        thread = threading.Thread(target=post)
        thread.start()
        watcher = connect()
        wait_until(lambda: _waiting_for_a_lock(watcher) == 1)
        api.process.send_signal(signal.SIGTERM)
        wait_until(lambda: _refuses(api.port))
        wait_until(lambda: has_ended_after_one_more_signal(api))
        thread.join()

    assert api.wait() == 0
    assert os.WIFEXITED(api.process.returncode)
