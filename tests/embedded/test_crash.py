import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from schema.embedded import processes
from schema.embedded.server import Server
from tests.embedded.conftest import MakeServer, alive, call, kill, postmaster, query, starting, until


def insert_until_cut_off(url: str, acknowledged: list[int], *, first: int) -> None:
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            for number in range(first, first + 1_000_000):
                connection.execute("INSERT INTO numbers VALUES (%s)", [number])
                acknowledged.append(number)
    except psycopg.OperationalError:
        return


@contextmanager
def running(command: list[str], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def test_nothing_acknowledged_is_missing_after_the_server_was_killed_under_load(server: Server) -> None:
    url = server.ensure_running()
    query(url, "CREATE TABLE numbers (number int)")
    acknowledged: list[int] = []
    writers = [
        threading.Thread(
            target=insert_until_cut_off, args=(url, acknowledged), kwargs={"first": n * 1_000_000}
        )
        for n in range(4)
    ]
    for writer in writers:
        writer.start()
    until(lambda: len(acknowledged) > 200)

    kill(postmaster(url))
    for writer in writers:
        writer.join()

    with psycopg.connect(server.ensure_running()) as connection:
        kept = {number for (number,) in connection.execute("SELECT number FROM numbers")}
    assert kept >= set(acknowledged)


def test_children_that_a_killed_server_left_are_ended_before_the_restart(server: Server) -> None:
    with psycopg.connect(server.ensure_running()) as connection:
        orphan, main = connection.info.backend_pid, postmaster(server.url)
        # Stopped, it can't notice that the main process is gone, and keeps the shared memory.
        os.kill(orphan, signal.SIGSTOP)
        kill(main)
        assert alive(orphan)

        assert query(server.ensure_running(), "SELECT 1") == 1

        assert not alive(orphan)


def test_stop_ends_the_children_that_a_killed_server_left(server: Server) -> None:
    with psycopg.connect(server.ensure_running()) as connection:
        orphan = connection.info.backend_pid
        os.kill(orphan, signal.SIGSTOP)
        kill(postmaster(server.url))

        assert server.stop()

        assert not alive(orphan)


def test_processes_of_another_data_folder_are_left_alone(make_server: MakeServer, folder: Path) -> None:
    ours, other = make_server(), make_server(folder / "other")
    ours.ensure_running()
    theirs = postmaster(other.ensure_running())
    kill(postmaster(ours.url))

    ours.ensure_running()
    ours.stop("immediate")

    assert alive(theirs)
    assert postmaster(other.ensure_running()) == theirs


def test_a_program_that_only_looks_like_a_server_is_left_alone(server: Server) -> None:
    server.ensure_running()
    name = processes.cluster_name(server.place.data)
    tail = ["tail", "-f", "/dev/null", "postgres", f"cluster_name={name}"]
    # The server's user, in the server's folder, with the server's name: but no server.
    options = {**server.place.account.options(), "cwd": server.place.data, "stderr": subprocess.DEVNULL}
    with running(tail, **options) as reader:
        server.stop()

        assert reader.poll() is None


@pytest.mark.parametrize(
    "content", ["", "garbage\n\n", "{pid}", "{pid}\n{data}\n1\n5432\n{data}\n\n  1 1\nready\n"]
)
def test_a_pid_file_is_not_believed(server: Server, content: str) -> None:
    account, data = server.place.account, server.place.data
    # Of the server's own user, so that PostgreSQL would take it for another server.
    with running(["sleep", "600"], **account.options()) as stranger:
        path = data / "postmaster.pid"
        path.write_text(content.format(pid=stranger.pid, data=data))
        os.chown(path, account.uid, account.gid)

        server.stop()
        assert query(server.ensure_running(), "SELECT 1") == 1

        assert stranger.poll() is None


def test_a_killed_starter_leaves_a_server_that_the_next_one_finds(server: Server) -> None:
    caller = call(starting(server))
    until(lambda: server.place.data.exists() and processes.postmaster(server.place.data))

    kill(caller.pid)
    caller.communicate()
    found = processes.postmaster(server.place.data)

    assert postmaster(server.ensure_running()) == found


@pytest.mark.slow
def test_a_server_that_lives_but_does_not_answer_yet_is_waited_for_and_reported_once(server: Server) -> None:
    main = postmaster(server.ensure_running())
    os.kill(main, signal.SIGSTOP)
    caller = call(starting(server))
    assert caller.stderr is not None

    report = caller.stderr.readline()
    os.kill(main, signal.SIGCONT)
    url, rest = caller.communicate()

    assert report.startswith("orders: waiting for PostgreSQL in ")
    assert (url.strip(), rest) == (server.url, "")
    assert postmaster(server.url) == main


@pytest.mark.slow
def test_ten_processes_recover_a_killed_server_together(server: Server) -> None:
    kill(postmaster(server.ensure_running()))

    callers = [call(starting(server)) for _ in range(10)]
    answers = [caller.communicate() for caller in callers]

    assert [caller.returncode for caller in callers] == [0] * 10
    assert {error for _, error in answers} == {""}
