"""`orders db backup` and `restore`, on a database that DATABASE_URL names."""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from schema import migrate
from schema.embedded import account, binaries
from schema.order import NewOrder
from schema.queue import submit, tally
from schema.reports import metrics
from schema.runtime.connection import Connection
from schema.states import Status
from tests.cli.conftest import ORDERS, call
from tests.rows import Queue

pytestmark = pytest.mark.direct  # What a pooler stands before can't be renamed.

Orders = Callable[..., "subprocess.CompletedProcess[str]"]
Facts = Callable[..., Any]


@pytest.fixture(autouse=True)
def beside(server_url: str, database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A session beside the test's database, which drops what restores leave there."""
    name = conninfo.conninfo_to_dict(database_url)["dbname"]
    with psycopg.connect(server_url, autocommit=True) as connection:
        yield connection
        for (left,) in databases_beside(connection, str(name)):
            connection.execute(f'DROP DATABASE "{left}" WITH (FORCE)')


def databases_beside(connection: psycopg.Connection[Any], name: str) -> list[Any]:
    return connection.execute(
        "SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{name}_%"]
    ).fetchall()


@pytest.fixture
def beside_names(beside: psycopg.Connection[Any], database_url: str) -> Callable[[], list[str]]:
    """Return what databases there are beside the test's, by the part of their names that is not its name."""
    name = str(conninfo.conninfo_to_dict(database_url)["dbname"])
    return lambda: sorted(left.removeprefix(f"{name}_") for (left,) in databases_beside(beside, name))


@pytest.fixture
def dump(tmp_path: Path, orders: Orders, connection: Connection) -> Path:
    """A backup in which the answer is 42, of a database in which it is 7 by now; nobody is connected."""
    connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    orders("db", "backup", tmp_path / "taken")
    connection.execute("UPDATE kept SET answer = 7")
    connection.close()
    return tmp_path / "taken"


@pytest.fixture
def answer(database_url: str) -> Callable[[], Any]:
    def ask() -> Any:
        with psycopg.connect(database_url) as connection:
            return (connection.execute("SELECT answer FROM kept").fetchone() or [None])[0]

    return ask


@pytest.fixture
def instead(tmp_path: Path) -> Callable[..., str]:
    """Put a script in the place of the machine's pg_restore, as `PATH` has it from then on."""

    def put(script: str, *, name: str = "pg_restore", version: int = binaries.MAJOR) -> str:
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        for program in ("pg_dump", "pg_restore"):
            real = binaries.find(version) / program
            body = script.replace("REAL", f"'{real}'") if program == name else f"exec '{real}' \"$@\"\n"
            (folder / program).write_text(
                f'#!/bin/sh\nif [ "$1" = --version ]; then exec \'{real}\' "$@"; fi\n{body}'
            )
            (folder / program).chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return put


LOADING = 'case "$*" in *--dbname=*) loading=yes;; *) loading=;; esac\n'


def test_a_backup_under_load_holds_every_row_acknowledged_before_it_began(
    orders: Orders, database_url: str, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    acknowledged: list[int] = []
    stop = threading.Event()

    def insert() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE numbers (number int PRIMARY KEY)")
            while not stop.is_set():
                connection.execute("INSERT INTO numbers VALUES (%s)", [len(acknowledged)])
                acknowledged.append(len(acknowledged))

    writer = threading.Thread(target=insert)
    writer.start()
    try:
        wait_until(lambda: len(acknowledged) > 100)
        before = len(acknowledged)
        orders("db", "backup", tmp_path / "taken")
        wait_until(lambda: len(acknowledged) > before + 100)
    finally:
        stop.set()
        writer.join()

    orders("db", "restore", tmp_path / "taken")

    with psycopg.connect(database_url) as connection:
        kept = {number for (number,) in connection.execute("SELECT number FROM numbers")}
        connection.execute("SET enable_seqscan = off")
        assert connection.execute("SELECT count(*) FROM numbers WHERE number >= 0").fetchone() == (len(kept),)
    assert kept >= set(range(before))
    assert kept == set(range(len(kept)))


GO_ON = """
DO $$ BEGIN
    WHILE pg_current_xact_id()::text::bigint < {} LOOP COMMIT; END LOOP;
END $$
"""


def test_what_is_restored_goes_on_exactly_where_it_was(
    orders: Orders, queue: Queue, database_url: str, tmp_path: Path
) -> None:
    for status in ("completed", "failed", "pending", "retrying", "cancelled", "processing"):
        queue.insert(status)
    rows, last = queue.snapshot(), queue.value("SELECT max(seq) FROM orders")
    # As if it came from a server whose transactions have larger numbers than they have here.
    tally.fold(queue.connection)
    ahead = queue.value("UPDATE tally SET floor = pg_current_xact_id()::text::bigint + 5000 RETURNING floor")
    orders("db", "backup", tmp_path / "taken")
    queue.connection.execute("DELETE FROM orders")
    queue.connection.close()

    orders("db", "restore", tmp_path / "taken")

    with Connection.open(database_url, name="test") as connection:
        restored = Queue(connection)
        assert restored.snapshot() == rows
        order = NewOrder("ada", ("tea",), restored.value("SELECT 1::numeric"))
        placed = [submit.submit(connection, order) for _ in range(60)]
        tickets = [restored.row(order_id).seq for order_id in placed]
        restored.connection.execute(GO_ON.format(ahead))
        counted = connection.execute("SELECT status, count(*) FROM orders GROUP BY status").fetchall()
        found = metrics.read(connection, simulated_seconds=2)
    assert tickets == list(range(last + 1, last + 61))
    assert dict(found.counts) == dict(counted)


def test_a_backup_is_its_owners_alone_from_its_first_byte(
    orders: Orders, tmp_path: Path, instead: Callable[..., str]
) -> None:
    script = 'for word; do case $word in --file=*) stat -c "%a %s" "${word#--file=}" >&3;; esac; done\n'
    path = instead(f'exec 3>"{tmp_path}/seen"\n{script}exec REAL "$@"\n', name="pg_dump")

    orders("db", "backup", tmp_path / "taken", PATH=path)

    assert (tmp_path / "seen").read_text() == "600 0\n"
    assert (tmp_path / "taken").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir() if "partial" in each.name] == []


def test_a_backup_has_the_time_for_a_name_by_default(database_url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*ORDERS, "db", "backup", "--json"],
        env={**os.environ, "DATABASE_URL": database_url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    file = Path(json.loads(done.stdout)["file"])
    assert re.fullmatch(r"\d{8}T\d{6}Z\.dump", file.name)
    assert (file.parent, file.exists()) == (tmp_path / "backups", True)


@pytest.mark.parametrize("what", ["file", "folder", "dangling link"])
def test_a_backup_does_not_go_where_something_is(orders: Orders, tmp_path: Path, what: str) -> None:
    target = tmp_path / "taken"
    match what:
        case "file":
            target.write_text("mine")
        case "folder":
            target.mkdir()
        case "dangling link":
            target.symlink_to(tmp_path / "nothing")

    done = orders("db", "backup", target, status=1)

    assert done.stderr == f"{target} exists: name a new file\n"
    assert list(tmp_path.iterdir()) == [target]


def test_a_backup_that_can_not_be_written_is_one_line(orders: Orders, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = orders("db", "backup", tmp_path / "file" / "taken", status=1)

    assert done.stderr == f"can't write {tmp_path / 'file'}: File exists\n"


@pytest.mark.parametrize(
    "script", ["exit 3", "kill -9 $$", "echo oops >&2; exit 1", 'REAL "$@"; kill -9 $PPID']
)
def test_a_backup_that_breaks_off_leaves_no_file_of_that_name(
    database_url: str, tmp_path: Path, instead: Callable[..., str], script: str
) -> None:
    done = call("db", "backup", tmp_path / "taken", url=database_url, PATH=instead(script, name="pg_dump"))

    assert done.returncode in {1, -signal.SIGKILL}
    assert not (tmp_path / "taken").exists()


def test_a_backup_that_can_not_be_read_again_gets_no_name(
    orders: Orders, tmp_path: Path, instead: Callable[..., str]
) -> None:
    cut = 'REAL "$@"\nfor word; do case $word in --file=*) truncate -s -1k "${word#--file=}";; esac; done\n'

    done = orders("db", "backup", tmp_path / "taken", status=1, PATH=instead(cut, name="pg_dump"))

    assert "pg_restore" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["programs"]


def flip_a_bit(dump: Path) -> None:
    content = bytearray(dump.read_bytes())
    content[-40] ^= 1
    dump.write_bytes(content)


def cut_off_the_end(dump: Path) -> None:
    dump.write_bytes(dump.read_bytes()[:-100])


def empty(dump: Path) -> None:
    dump.write_bytes(b"")


def write_something_else(dump: Path) -> None:
    dump.write_text("DROP TABLE orders;\n")


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off_the_end, empty, write_something_else])
def test_a_damaged_backup_is_not_restored(
    orders: Orders,
    dump: Path,
    answer: Callable[[], Any],
    beside_names: Callable[[], list[str]],
    instead: Callable[..., str],
    damage: Callable[[Path], None],
) -> None:
    damage(dump)
    path = instead(f'{LOADING}[ -z "$loading" ] || echo "it is loaded" >&2\nexec REAL "$@"\n')

    done = orders("db", "restore", dump, status=1, PATH=path)

    assert "it is loaded" not in done.stderr
    assert done.stderr.startswith("pg_restore failed: ")
    assert done.stderr.count("\n") == 1
    assert (answer(), beside_names()) == (7, [])


def test_a_folder_of_an_earlier_release_is_known_for_what_it_is(orders: Orders, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "PG_VERSION").write_text("18\n")

    done = orders("db", "restore", tmp_path / "taken", status=1)

    assert "is a folder as backups were before: the release before this one restores it" in done.stderr


def test_the_database_of_before_is_kept(
    facts: Facts, dump: Path, answer: Callable[[], Any], server_url: str
) -> None:
    restored = facts("db", "restore", dump)

    assert restored["file"] == str(dump)
    assert answer() == 42
    with psycopg.connect(server_url, dbname=restored["kept_as"]) as before:
        assert before.execute("SELECT answer FROM kept").fetchone() == (7,)


def test_nothing_is_restored_while_programs_are_connected(
    orders: Orders,
    dump: Path,
    database_url: str,
    answer: Callable[[], Any],
    beside_names: Callable[[], list[str]],
) -> None:
    with (
        psycopg.connect(database_url, application_name="orders-api"),
        psycopg.connect(database_url, application_name="orders-api"),
        psycopg.connect(database_url, application_name="psql"),
    ):
        done = orders("db", "restore", dump, status=1)

    expected = "programs are connected to the database, stop them first: orders-api (2), psql (1)\n"
    assert (done.stdout, done.stderr) == ("", expected)
    assert (answer(), beside_names()) == (7, [])


def test_a_program_that_connects_meanwhile_keeps_its_database(
    orders: Orders,
    dump: Path,
    database_url: str,
    tmp_path: Path,
    answer: Callable[[], Any],
    beside_names: Callable[[], list[str]],
    instead: Callable[..., str],
) -> None:
    meanwhile = conninfo.make_conninfo(database_url, application_name="late")
    psql = (
        f"'{binaries.find() / 'psql'}' -d \"{meanwhile}\" -c 'SELECT pg_sleep(60)' >'{tmp_path}/psql' 2>&1 &"
    )
    path = instead(f'{LOADING}[ -z "$loading" ] || {psql}\nexec REAL "$@"\n')

    done = orders("db", "restore", dump, status=1, PATH=path)

    assert done.stderr.endswith("stop them first: late (1)\n")
    assert (answer(), beside_names()) == (7, [])


def test_only_one_restore_is_under_way(
    orders: Orders,
    dump: Path,
    database_url: str,
    tmp_path: Path,
    answer: Callable[[], Any],
    instead: Callable[..., str],
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    path = instead(f'{LOADING}[ -z "$loading" ] || read go <"{gate}"\nexec REAL "$@"\n')
    first = subprocess.Popen(
        [*ORDERS, "db", "restore", dump], env={**os.environ, "DATABASE_URL": database_url, "PATH": path}
    )
    with gate.open("w") as go:
        second = orders("db", "restore", dump, status=1)
        go.write("on\n")

    assert first.wait(timeout=60) == 0
    assert second.stderr == "another restore is under way\n"
    assert answer() == 42


KILLS = {
    "while it is verified": f'{LOADING}[ -n "$loading" ] || kill -9 $PPID\nexec REAL "$@"\n',
    "before it is loaded": f'{LOADING}[ -z "$loading" ] || kill -9 $PPID\nexec REAL "$@"\n',
    "when it is loaded": f'{LOADING}REAL "$@"\n[ -z "$loading" ] || kill -9 $PPID\n',
}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_a_restore_that_is_killed_leaves_the_database_as_it_was_and_can_be_repeated(
    orders: Orders,
    dump: Path,
    database_url: str,
    answer: Callable[[], Any],
    beside_names: Callable[[], list[str]],
    instead: Callable[..., str],
    kill: str,
) -> None:
    killed = call("db", "restore", dump, url=database_url, PATH=instead(kill))

    assert killed.returncode == -signal.SIGKILL
    assert answer() == 7
    assert set(beside_names()) <= {"restoring"}

    orders("db", "restore", dump)

    assert answer() == 42
    assert [re.sub(r"\d", "0", name) for name in beside_names()] == ["before_00000000_000000"]


def test_a_restore_that_is_killed_while_it_renames_has_renamed_both_or_none(
    orders: Orders,
    dump: Path,
    database_url: str,
    server_url: str,
    beside: psycopg.Connection[Any],
    answer: Callable[[], Any],
    wait_until: Callable[..., Any],
) -> None:
    """It dies between the two: the second one waits for whoever has the row of the new database locked."""
    waiting = (
        "SELECT FROM pg_stat_activity WHERE query ~ '^ALTER DATABASE.* RENAME' AND wait_event_type = 'Lock'"
    )
    leave = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orders-db'"
    with psycopg.connect(server_url) as holder:
        process = subprocess.Popen(
            [*ORDERS, "db", "restore", dump], env={**os.environ, "DATABASE_URL": database_url}
        )
        fresh = f"{conninfo.conninfo_to_dict(database_url)['dbname']}_restoring"
        lock = "SELECT FROM pg_database WHERE datname = %s FOR UPDATE"
        wait_until(lambda: holder.execute(lock, [fresh]).rowcount)
        wait_until(lambda: beside.execute(waiting).rowcount)
        process.kill()
        process.wait()
        beside.execute(leave)
    assert answer() == 7

    orders("db", "restore", dump)

    assert answer() == 42


def test_the_password_stands_in_no_programs_arguments(
    dump: Path, database_url: str, tmp_path: Path, instead: Callable[..., str]
) -> None:
    url = f"{conninfo.make_conninfo(database_url)} password=hunter2"
    said = tmp_path / "said"
    log = f'echo "$@ [$PGPASSWORD]" >>"{said}"\nexec REAL "$@"\n'

    taken = call("db", "backup", tmp_path / "again", url=url, PATH=instead(log, name="pg_dump"))
    restored = call("db", "restore", dump, url=url, PATH=instead(log))

    assert (taken.returncode, restored.returncode) == (0, 0)
    words = said.read_text()
    assert len(words.splitlines()) == 3
    assert words.count("[hunter2]") == words.count("hunter2") == 3


def test_without_programs_on_the_machine_the_wheels_serve(
    dump: Path, database_url: str, answer: Callable[[], Any]
) -> None:
    done = call("db", "restore", dump, url=database_url, PATH="/nowhere")

    assert done.returncode == 0
    assert answer() == 42


@pytest.fixture
def old_server_url(store: Path) -> Iterator[str]:
    """A PostgreSQL of the major version before ours that the wheel has."""
    with tempfile.TemporaryDirectory(prefix="orders-old-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        user = account.for_folder(folder)
        programs = binaries.reachable(binaries.find(16), user, store=store)
        user.run([programs / "initdb", "-D", folder / "data", "-U", "orders", "-A", "trust", "-E", "UTF8"])
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        pg_ctl: list[str | Path] = [programs / "pg_ctl", "-D", folder / "data", "-w"]
        user.run([*pg_ctl, "-l", folder / "log", "-o", options, "start"])
        try:
            yield f"postgresql://orders@/postgres?host={folder}"
        finally:
            user.run([*pg_ctl, "-m", "immediate", "stop"])
            user.run(["rm", "-rf", folder / "data"])


def test_a_dump_of_an_older_server_is_restored_into_a_newer_one_and_into_itself(
    orders: Orders, old_server_url: str, database_url: str, tmp_path: Path
) -> None:
    migrate.upgrade(old_server_url)
    with Connection.open(old_server_url, name="test") as connection:
        order_id = Queue(connection).insert("failed")
        kept = Queue(connection).snapshot()

    taken = call("db", "backup", tmp_path / "taken", url=old_server_url)
    orders("db", "restore", tmp_path / "taken")
    into_itself = call("db", "restore", tmp_path / "taken", url=old_server_url)

    assert (taken.returncode, into_itself.returncode) == (0, 0)
    for url in (database_url, old_server_url):
        redriven = call("redrive", order_id, "--json", url=url)
        with Connection.open(url, name="test") as connection:
            assert Queue(connection).value("SELECT count(*) FROM orders") == len(kept) == 1
            assert metrics.read(connection, simulated_seconds=2).counts[Status.PENDING] == 1
        assert json.loads(redriven.stdout)["seq"] == kept[0]["seq"] + 1
