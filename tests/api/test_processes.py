"""ORDERS_API_PROCESSES: several processes on one port."""

import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from schema.runtime.supervisor import pause_seconds
from tests.api.conftest import Api

COUNT = 3


def is_running(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


class Pack:
    """The processes of an API, as its log tells them."""

    def __init__(self, api: Api, wait_until: Callable[..., Any]) -> None:
        self.api = api
        self._wait_until = wait_until
        wait_until(lambda: len(self.pids) == COUNT)

    @property
    def pids(self) -> list[int]:
        started, ended = (
            {int(pid) for pid in re.findall(rf"{event} pid=(\d+)", self.api.log)}
            for event in ("process_started", "process_ended")
        )
        return sorted(started - ended)

    def are_gone(self) -> None:
        pids = self.pids
        self._wait_until(lambda: not any(is_running(pid) for pid in pids))


@pytest.fixture
def pack(start_api: Callable[..., Any], database_url: str, wait_until: Callable[..., Any]) -> Pack:
    return Pack(start_api(database_url, ORDERS_API_PROCESSES=str(COUNT)), wait_until)


def test_orders_are_placed_on_one_port_and_all_processes_stop_together(
    pack: Pack, stored: Callable[[], int]
) -> None:
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: pack.api.post().status, range(100)))

    assert answers == [201] * 100
    assert stored() == 100
    assert pack.api.stop() == 0
    assert "api_stopped" in pack.api.lines[-1]
    assert "Traceback" not in pack.api.log
    assert "Fatal" not in pack.api.log
    assert "ERROR" not in pack.api.log
    pack.are_gone()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it reads /proc")
def test_every_process_answers(pack: Pack, wait_until: Callable[..., Any]) -> None:
    for pid in pack.pids:
        others = [each for each in pack.pids if each != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            wait_until(lambda others=others: all(is_stopped(other) for other in others))
            assert pack.api.call("GET", "/healthz").status == 200
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)


def clients_of(pid: int, port: int) -> int:
    """Return how many connections to `port` a process has."""
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = {
        f"socket:[{inode}]"
        for _, local, _, state, *_, inode in [row[:10] for row in table]
        if int(local.rpartition(":")[2], 16) == port and state == "01"
    }
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += str(descriptor.readlink()) in established
    return count


def shares(pack: Pack, count: int, *, wait_until: Callable[..., Any]) -> list[int]:
    """Return how many of so many clients that come at once each process takes."""

    def taken() -> list[int]:
        return [clients_of(pid, pack.api.port) for pid in pack.pids]

    clients = [socket.create_connection(("127.0.0.1", pack.api.port)) for _ in range(count)]
    wait_until(lambda: sum(taken()) == count)
    found = taken()
    for client in clients:
        client.close()
    wait_until(lambda: sum(taken()) == 0)
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="it reads /proc")
def test_clients_that_come_at_once_and_stay_are_shared_out(
    pack: Pack, wait_until: Callable[..., Any]
) -> None:
    # At first some may not serve yet.
    wait_until(lambda: min(shares(pack, 10 * COUNT, wait_until=wait_until)) > 0)

    rounds = [shares(pack, 10 * COUNT, wait_until=wait_until) for _ in range(5)]

    # A third each is 50 in all, beside other tests it may be 14. Without the pause it is 4 at most.
    assert sum(map(min, rounds)) >= 8, rounds


def test_process_that_dies_is_replaced_while_the_others_go_on(
    pack: Pack, wait_until: Callable[..., Any]
) -> None:
    before = pack.pids
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: f"process_ended pid={before[0]} status=-9" in pack.api.log)
    assert pack.api.post().status == 201

    wait_until(lambda: len(pack.pids) == COUNT)

    assert len(set(pack.pids) - set(before)) == 1
    assert pack.api.post().status == 201


def test_processes_take_no_module_from_the_current_folder(
    start_api: Callable[..., Any], database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "falcon.py").write_text("raise SystemExit('not this one')")
    command = f"cd {tmp_path} && exec {Path(sys.executable).with_name('orders-api')}"
    api = start_api(database_url, command=["sh", "-c", command], ORDERS_API_PROCESSES=str(COUNT))

    assert api.call("GET", "/healthz").status == 200
    assert "process_ended" not in api.log


def test_processes_end_with_the_one_that_started_them(pack: Pack) -> None:
    pack.api.process.kill()

    pack.are_gone()


def test_clients_are_refused_while_the_processes_stop(pack: Pack, wait_until: Callable[..., Any]) -> None:
    unfinished = pack.api.connect()
    unfinished.putrequest("POST", "/orders")
    unfinished.putheader("Content-Length", "10")
    unfinished.endheaders(b"{")
    # It is with a process by now, since it was before this one in the queue.
    assert pack.api.call("GET", "/healthz").status == 200
    pack.api.process.send_signal(signal.SIGTERM)

    wait_until(lambda: refuses(pack.api.port))

    assert pack.api.process.poll() is None
    unfinished.close()
    assert pack.api.wait() == 0


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_pauses_before_the_next_start_grow_with_each_early_death_in_a_row() -> None:
    assert [pause_seconds(deaths) for deaths in (0, 1, 2, 3, 6, 1000)] == [0, 1, 2, 4, 30, 30]


def test_bad_count_is_named(start_api: Callable[..., Any], database_url: str) -> None:
    api = start_api(database_url, ready=False, ORDERS_API_PROCESSES="0")

    assert api.wait() == 2
    assert api.log.startswith("ORDERS_API_PROCESSES is '0'")


def test_variable_that_looks_like_a_setting_is_named_once_and_not_by_each_process(
    start_api: Callable[..., Any], database_url: str
) -> None:
    api = start_api(database_url, ORDERS_API_PROCESSES=str(COUNT), ORDERS_PROCESSES="3")

    assert api.stop() == 0
    assert api.log.count("setting_unknown name=ORDERS_PROCESSES") == 1
