"""`orders import`, as it is typed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from schema.intake.files import Format
from schema.intake.importer import import_file
from schema.intake.progress import Imported, ImportStateError
from schema.intake.rejected import RejectsInTheWayError
from schema.runtime.connection import Connection

ORDERS = [sys.executable, "-c", "import sys; from schema.cli.main import main; sys.exit(main())", "import"]


def line(user_id: str, **changes: Any) -> str:
    return (
        json.dumps({"user_id": user_id, "item_ids": ["tea", '"{,}\\'], "total_amount": 1.5, **changes}) + "\n"
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three orders with something else between them."""
    path = tmp_path / "a.ndjson"
    path.write_text(line("user 1") + "oops\n" + line("user 2") + line("x", total_amount=-1) + line("user 3"))
    return path


def run(*arguments: object, url: str, status: int = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [*ORDERS, *map(str, arguments)],
        env={**os.environ, "DATABASE_URL": url},
        input="",
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def users(connection: Connection) -> list[str]:
    return [user_id for (user_id,) in connection.execute("SELECT user_id FROM orders ORDER BY seq")]


def rejected(file: Path) -> list[Any]:
    text = file.with_name(file.name + ".rejected.ndjson").read_text()
    return [json.loads(each) for each in text.splitlines()]


def do(
    connection: Connection,
    file: Path,
    *,
    again: bool = False,
    on_chunk: Callable[[Imported], None] = lambda _: None,
) -> Imported:
    """Import in chunks of two."""
    return import_file(
        connection,
        file,
        kind=Format.NDJSON,
        rejects_path=file.with_name(file.name + ".rejected.ndjson"),
        again=again,
        chunk_orders=2,
        on_chunk=on_chunk,
    )


def test_orders_of_a_file_are_placed_in_its_order_and_bad_lines_set_aside(
    file: Path, database_url: str, connection: Connection
) -> None:
    done = run(file, url=database_url, status=1)

    assert users(connection) == ["user 1", "user 2", "user 3"]
    row = connection.execute("SELECT DISTINCT item_ids, total_amount::text, status, attempt FROM orders")
    assert row.fetchall() == [(["tea", '"{,}\\'], "1.50", "pending", 0)]
    assert done.stdout.splitlines() == [
        f"{file}: 3 orders placed, 2 lines rejected",
        f"{file}.rejected.ndjson has the rejected lines, with reasons",
    ]
    assert [(each["line"], each["text"]) for each in rejected(file)] == [
        (2, "oops"),
        (4, line("x", total_amount=-1).strip()),
    ]
    assert "the line is not JSON" in rejected(file)[0]["reason"]
    assert "total_amount is -1" in rejected(file)[1]["reason"]


def test_facts_come_as_one_document(file: Path, database_url: str) -> None:
    first = run(file, "--json", url=database_url, status=1)
    again = run(file, "--json", url=database_url, status=1)

    facts = {"file": str(file), "placed": 3, "rejected": 2, "rejected_file": f"{file}.rejected.ndjson"}
    assert json.loads(first.stdout) == {**facts, "imported_before": False}
    assert json.loads(again.stdout) == {**facts, "imported_before": True}


def test_no_id_of_an_import_gives_its_neighbours_away(
    tmp_path: Path, database_url: str, connection: Connection
) -> None:
    file = tmp_path / "orders.ndjson"
    file.write_text("".join(f"{line(f'user {number}')}\n" for number in range(100)))

    run(file, url=database_url)

    rows = connection.execute("SELECT order_id FROM orders ORDER BY seq").fetchall()
    assert rows == sorted(rows)
    own = [order_id.int & (1 << 62) - 1 for (order_id,) in rows]
    assert len({abs(later - earlier) >> 32 for earlier, later in pairwise(own)}) > 90


def test_csv_is_imported(tmp_path: Path, database_url: str, connection: Connection) -> None:
    file = tmp_path / "orders.txt"
    file.write_text('user_id,item_ids,total_amount\nada,"[""tea""]",250.75\n')

    assert "say its --format" in run(file, url=database_url, status=1).stderr
    run(file, "--format", "csv", url=database_url)

    assert users(connection) == ["ada"]
    assert not file.with_name("orders.txt.rejected.ndjson").exists()


def test_file_is_imported_once_unless_it_is_to_be_done_again(
    file: Path, database_url: str, connection: Connection
) -> None:
    run(file, url=database_url, status=1)
    copy = file.rename(file.with_name("b.ndjson"))

    assert (
        "has been imported before: 3 orders placed, 2 lines rejected"
        in run(copy, url=database_url, status=1).stdout
    )
    assert len(users(connection)) == 3

    file.with_name(file.name + ".rejected.ndjson").unlink()
    run(copy, "--again", url=database_url, status=1)
    assert len(users(connection)) == 6
    assert len(rejected(copy)) == 2


@pytest.mark.parametrize("name", ["missing.ndjson", "."])
def test_file_that_can_not_be_read_is_named(tmp_path: Path, database_url: str, name: str) -> None:
    done = run(tmp_path / name, "--format", "ndjson", url=database_url, status=1)

    assert done.stderr.startswith(f"{tmp_path / name}: ")


def test_empty_file_has_no_orders(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "a.ndjson").touch()

    done = run(tmp_path / "a.ndjson", url=database_url)

    assert done.stdout == f"{tmp_path}/a.ndjson: 0 orders placed, 0 lines rejected\n"


class StopError(Exception):
    pass


def stop_after(chunks: int) -> Callable[[Imported], None]:
    left = [chunks]

    def on_chunk(_: Imported) -> None:
        left[0] -= 1
        if not left[0]:
            raise StopError

    return on_chunk


@pytest.mark.parametrize("chunks", [1, 2])
def test_import_goes_on_where_it_has_stopped(file: Path, connection: Connection, chunks: int) -> None:
    with pytest.raises(StopError):
        do(connection, file, on_chunk=stop_after(chunks))
    # What a chunk wrote there that was not committed.
    with file.with_name(file.name + ".rejected.ndjson").open("a") as rejects:
        rejects.write('{"line": 3}\n')

    done = do(connection, file)

    assert users(connection) == ["user 1", "user 2", "user 3"]
    assert (done.placed, done.rejected, done.offset.line) == (3, 2, 5)
    assert [each["line"] for each in rejected(file)] == [2, 4]


def test_file_that_changed_since_its_import_stopped_is_not_imported_twice(
    file: Path, connection: Connection
) -> None:
    with pytest.raises(StopError):
        do(connection, file, on_chunk=stop_after(1))
    file.write_text(file.read_text().replace("oops\n", line("user 1.5")))

    with pytest.raises(ImportStateError, match=r"changed since its import stopped after line 3: .* --again"):
        do(connection, file)
    assert users(connection) == ["user 1", "user 2"]

    file.with_name(file.name + ".rejected.ndjson").unlink()
    do(connection, file, again=True)
    assert users(connection)[2:] == ["user 1", "user 1.5", "user 2", "user 3"]


def test_two_imports_of_one_file_place_it_once(
    file: Path, connection: Connection, connect: Callable[[], Connection]
) -> None:
    other = connect()
    copy = Path(shutil.copy(file, file.with_name("copy.ndjson")))

    def import_the_copy(_: Imported) -> None:
        do(other, copy)

    with pytest.raises(ImportStateError, match="another process"):
        do(connection, file, on_chunk=import_the_copy)

    assert users(connection) == ["user 1", "user 2", "user 3"]


def test_file_that_is_being_imported_is_left_alone(
    file: Path, connection: Connection, connect: Callable[[], Connection]
) -> None:
    other = connect()

    def interfere(_: Imported) -> None:
        with pytest.raises(ImportStateError, match="another process"):
            do(other, file)

    do(connection, file, on_chunk=interfere)

    assert users(connection) == ["user 1", "user 2", "user 3"]
    assert [each["line"] for each in rejected(file)] == [2, 4]


def test_import_that_is_done_again_and_stopped_goes_on_where_it_was(
    file: Path, connection: Connection
) -> None:
    do(connection, file)
    file.with_name(file.name + ".rejected.ndjson").unlink()
    with pytest.raises(StopError):
        do(connection, file, again=True, on_chunk=stop_after(1))

    do(connection, file, again=True)

    assert users(connection) == ["user 1", "user 2", "user 3"] * 2


def test_changed_file_that_is_imported_again_leaves_nothing_in_its_way(
    file: Path, connection: Connection
) -> None:
    with pytest.raises(StopError):
        do(connection, file, on_chunk=stop_after(1))
    file.with_name(file.name + ".rejected.ndjson").unlink()
    file.write_text(line("user 4") + line("user 5"))
    do(connection, file, again=True)

    assert do(connection, file).finished
    file.write_text(line("user 6"))
    assert do(connection, file).placed == 1

    assert users(connection) == [f"user {number}" for number in (1, 2, 4, 5, 6)]


def test_content_that_was_left_unfinished_for_another_goes_on_where_it_was(
    file: Path, connection: Connection
) -> None:
    before, rejects = file.read_text(), file.with_name(file.name + ".rejected.ndjson")
    with pytest.raises(StopError):
        do(connection, file, on_chunk=stop_after(1))
    kept = rejects.rename(file.with_name("kept"))
    file.write_text(line("user 4"))
    do(connection, file, again=True)

    file.write_text(before)
    kept.rename(rejects)
    done = do(connection, file)

    assert (done.finished, done.placed, done.rejected) == (True, 3, 2)
    assert users(connection) == ["user 1", "user 2", "user 4", "user 3"]


@pytest.mark.parametrize("what", ["appended", "cut"])
def test_file_that_changes_while_it_is_imported_is_an_error_and_can_be_put_back(
    file: Path, connection: Connection, what: str
) -> None:
    before = file.read_text()

    def change(_: Imported) -> None:
        file.write_text(before + line("user 4") if what == "appended" else before[:100])

    with pytest.raises(ImportStateError, match="was changed while it was imported"):
        do(connection, file, on_chunk=change)
    file.write_text(before)
    done = do(connection, file)

    assert (done.finished, done.placed, done.rejected) == (True, 3, 2)
    assert users(connection) == ["user 1", "user 2", "user 3"]


def test_rejects_of_another_import_are_not_overwritten(file: Path, database_url: str) -> None:
    rejects = file.with_name(file.name + ".rejected.ndjson")
    rejects.write_text("somebody's\n")

    done = run(file, url=database_url, status=1)

    assert f"{rejects} is there already: move it away" in done.stderr
    assert rejects.read_text() == "somebody's\n"
    assert "is there already" in run(file, "--rejected", file, url=database_url, status=1).stderr
    assert "is there already" in run(file, "--rejected", "/dev/null", url=database_url, status=1).stderr


def test_file_that_can_be_read_only_once_is_refused(database_url: str) -> None:
    done = run("/dev/stdin", "--format", "ndjson", url=database_url, status=1)

    assert "/dev/stdin can be read only once" in done.stderr


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path, database_url: str) -> None:
    pipe = tmp_path / "orders.ndjson"
    os.mkfifo(pipe)

    done = run(pipe, url=database_url, status=1)

    assert f"{pipe} can be read only once" in done.stderr


@pytest.mark.parametrize("what", ["link", "link to nowhere", "empty file", "pipe", "folder"])
def test_nothing_that_lies_where_the_rejects_go_is_written_to(
    file: Path, tmp_path: Path, database_url: str, connection: Connection, what: str
) -> None:
    rejects, victim = file.with_name(file.name + ".rejected.ndjson"), tmp_path / "victim"
    if what == "link":
        victim.touch()
    make: dict[str, Callable[[], None]] = {
        "link": lambda: rejects.symlink_to(victim),
        "link to nowhere": lambda: rejects.symlink_to(victim),
        "empty file": rejects.touch,
        "pipe": lambda: os.mkfifo(rejects),
        "folder": rejects.mkdir,
    }
    make[what]()

    done = run(file, url=database_url, status=1)

    assert f"{rejects} is there already: move it away" in done.stderr
    assert not victim.exists() or victim.read_text() == ""
    assert users(connection) == []


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_nothing_that_has_taken_the_place_of_the_rejects_is_written_to(
    file: Path, tmp_path: Path, connection: Connection, what: str
) -> None:
    rejects, victim = file.with_name(file.name + ".rejected.ndjson"), tmp_path / "victim"
    with pytest.raises(StopError):
        do(connection, file, on_chunk=stop_after(1))
    victim.write_text("somebody's words, which are longer than what was rejected " * 9)
    rejects.unlink()
    rejects.symlink_to(victim) if what == "link" else os.mkfifo(rejects)

    with pytest.raises(RejectsInTheWayError):
        do(connection, file)

    assert victim.read_text() == "somebody's words, which are longer than what was rejected " * 9


def test_link_that_is_laid_meanwhile_is_not_written_to(
    file: Path, tmp_path: Path, connection: Connection
) -> None:
    rejects, victim = file.with_name(file.name + ".rejected.ndjson"), tmp_path / "victim"
    file.write_text(line("user 1") + line("user 2") + "oops\n")

    with pytest.raises(RejectsInTheWayError):
        do(connection, file, on_chunk=lambda _: rejects.symlink_to(victim))

    assert not victim.exists()
    assert users(connection) == ["user 1", "user 2"]


def test_import_stops_beyond_so_many_rejects_and_goes_on_when_more_are_allowed(
    tmp_path: Path, database_url: str, connection: Connection
) -> None:
    file = tmp_path / "a.ndjson"
    file.write_text(line("user 1") + "x\n" * 30_000 + line("user 2"))

    stopped = run(file, url=database_url, status=1)
    again = run(file, url=database_url, status=1)

    words = f"{file}: 10,001 entries up to line 10,002 are no orders, so the import stops, 1 orders placed: "
    assert stopped.stderr.splitlines()[-1].startswith(words)
    assert again.stderr.splitlines()[-1].startswith(words)
    assert len(rejected(file)) == 10_001

    file.write_text(line("user 3") + "x\n" * 3 + line("user 4"))
    file.with_name(file.name + ".rejected.ndjson").unlink()
    run(file, "--again", "--max-rejected", "2", url=database_url, status=1)
    assert len(rejected(file)) == 3
    assert (
        "2 orders placed, 3 lines rejected"
        in run(file, "--max-rejected", 3, url=database_url, status=1).stdout
    )
    assert users(connection) == ["user 1", "user 3", "user 4"]


NO_LOCKS = """
#include <errno.h>
int flock(int file, int operation) { errno = EBADF; return -1; }
"""


@pytest.mark.needs("gcc")
def test_file_that_can_not_be_locked_as_on_nfs_is_imported(
    file: Path, tmp_path: Path, database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nfs.c").write_text(NO_LOCKS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "nfs.so", tmp_path / "nfs.c"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "nfs.so"))

    run(file, url=database_url, status=1)

    assert users(connection) == ["user 1", "user 2", "user 3"]


def test_file_that_can_not_be_read_is_named_and_so_are_rejects_that_can_not_be_written(
    file: Path, tmp_path: Path, database_url: str
) -> None:
    absent = run(tmp_path / "absent.ndjson", url=database_url, status=1)
    folder = run(tmp_path, "--format", "csv", url=database_url, status=1)
    unwritable = run(file, "--rejected", tmp_path / "no" / "such", url=database_url, status=1)

    assert absent.stderr == f"{tmp_path / 'absent.ndjson'}: No such file or directory\n"
    assert folder.stderr == f"{tmp_path}: Is a directory\n"
    assert unwritable.stderr == f"{tmp_path / 'no' / 'such'}: No such file or directory\n"


def test_path_may_have_any_bytes(tmp_path: Path, database_url: str) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.ndjson"))
    file.write_text(line("user 1"))

    assert r"\xff.ndjson: 1 orders placed" in run(file, url=database_url).stdout


@pytest.fixture
def trigger(connection: Connection) -> Any:
    """Give the table of orders a trigger of its user's, until the test is over."""

    def install(body: str) -> None:
        connection.execute(f"""
            CREATE FUNCTION users_own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
            CREATE TRIGGER users_own BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION users_own();
        """)

    yield install
    connection.execute("DROP FUNCTION IF EXISTS users_own CASCADE")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("IF NEW.user_id = 'user 2' THEN RAISE 'not user 2'; END IF; RETURN NEW;", "not user 2"),
        (
            "IF NEW.user_id = 'user 2' THEN NEW.attempt = -1; END IF; RETURN NEW;",
            "orders_attempt_is_in_range",
        ),
        ("RETURN CASE WHEN NEW.user_id <> 'user 2' THEN NEW END;", "the database did not take the order"),
    ],
)
def test_order_that_the_database_refuses_is_set_aside_with_its_reason(
    file: Path, connection: Connection, trigger: Callable[[str], None], body: str, reason: str
) -> None:
    trigger(body)

    done = do(connection, file)

    assert users(connection) == ["user 1", "user 3"]
    assert (done.placed, done.rejected) == (2, 3)
    assert [each["line"] for each in rejected(file)] == [2, 3, 4]
    assert reason in rejected(file)[1]["reason"]


def test_refused_orders_are_set_aside_wherever_they_stand(
    tmp_path: Path, connection: Connection, trigger: Callable[[str], None]
) -> None:
    file = tmp_path / "a.ndjson"
    file.write_text("".join(line(f"user {number}") for number in range(20)))
    trigger(
        "IF NEW.user_id IN ('user 0', 'user 3', 'user 4', 'user 5', 'user 18', 'user 19')"
        " THEN RAISE 'not %', NEW.user_id; END IF; RETURN NEW;"
    )

    done = do(connection, file)

    refused = [0, 3, 4, 5, 18, 19]
    assert users(connection) == [f"user {number}" for number in range(20) if number not in refused]
    assert (done.placed, done.rejected) == (14, 6)
    assert [each["reason"] for each in rejected(file)] == [f"RaiseException: not user {n}" for n in refused]


def test_order_that_a_deferred_constraint_refuses_is_set_aside(
    file: Path, connection: Connection, trigger: Callable[[str], None]
) -> None:
    trigger("RETURN NEW;")
    connection.execute("""
        CREATE FUNCTION users_own_later() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN IF NEW.user_id = 'user 2' THEN RAISE 'too late'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER users_own_later AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION users_own_later();
    """)
    try:
        done = do(connection, file)
    finally:
        connection.execute("DROP FUNCTION users_own_later CASCADE")

    assert (done.placed, done.rejected) == (2, 3)


def test_database_that_refuses_every_order_for_another_reason_stops_the_import(
    file: Path, connection: Connection, database_url: str, trigger: Callable[[str], None]
) -> None:
    trigger("PERFORM no_such_function(); RETURN NEW;")

    done = run(file, url=database_url, status=1)

    assert "stopped before anything more was imported (UndefinedFunction" in done.stderr
    assert "give the same command again to go on from there" in done.stderr
    assert users(connection) == []


MANY = 100_000
"""Lines that take long enough for a signal to arrive before the last."""


@pytest.mark.proof
@pytest.mark.direct  # It counts sessions.
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_import_goes_on_and_places_every_order_once(
    tmp_path: Path,
    database_url: str,
    connection: Connection,
    wait_until: Callable[..., Any],
    number: signal.Signals,
) -> None:
    file = tmp_path / "many.ndjson"
    file.write_text("".join(line(f"user {each}") for each in range(MANY)))
    process = subprocess.Popen(
        [*ORDERS, str(file)],
        env={**os.environ, "DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        wait_until(lambda: users_count(connection) > 0)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert 0 < users_count(connection) < MANY
    if number == signal.SIGINT:
        assert "(interrupted): give the same command again" in errors
        assert process.returncode == 1

    run(file, url=database_url)

    assert users(connection) == [f"user {each}" for each in range(MANY)]


def users_count(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) FROM orders").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.direct  # Nothing is heard through a pooler.
def test_idle_workers_are_woken(file: Path, connect: Callable[[], Connection], database_url: str) -> None:
    listener = connect()
    listener.execute("LISTEN orders")

    run(file, url=database_url, status=1)

    assert list(listener.notifies(timeout=5, stop_after=1))
