import os
import re
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text

from orders_api.server import THREADS
from schema.embedded import address, binaries
from schema.embedded.server import Server
from schema.errors import StartError
from schema.runtime import settings
from tests.embedded.conftest import (
    CHECKOUT,
    MakeServer,
    alive,
    call,
    complaints,
    kill,
    postmaster,
    query,
    starting,
    until,
)

PER_API_PROCESS = THREADS + 1
PER_WORKER = 3 + settings.HANDLER_CONNECTIONS.default
"""What one process may take of the database's connections; an API has one beside those of its threads."""

HOSTILE = {
    "PGDATA": "/nowhere",
    "PGHOST": "/nowhere",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGDATABASE": "nothing",
    "PGOPTIONS": "-c no_such_setting=1",
    "PGSSLMODE": "verify-full",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "nobody",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCHANNELBINDING": "require",
    "PGCLIENTENCODING": "garbage",
    "PGSSLNEGOTIATION": "direct",
    "LC_ALL": "xx_XX.garbage",
    "LANG": "xx_XX.garbage",
    "TZ": "Nowhere/Nothing",
    "TMPDIR": "/nowhere",
}


def test_ten_processes_that_start_at_once_share_one_server(make_server: MakeServer) -> None:
    server = make_server(seeded=False)

    callers = [call(starting(server)) for _ in range(10)]
    answers = [caller.communicate() for caller in callers]

    assert [caller.returncode for caller in callers] == [0] * 10
    assert {complaints(error) for _, error in answers} == {""}
    assert {url.strip() for url, _ in answers} == {server.url}
    assert postmaster(server.url) > 0


def test_rows_are_there_again_after_a_stop_and_a_start(server: Server) -> None:
    query(server.ensure_running(), "CREATE TABLE rows_kept AS SELECT 42 AS answer")

    assert server.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url)

    assert query(server.ensure_running(), "SELECT answer FROM rows_kept") == 42


def test_stopping_what_does_not_run_says_so(make_server: MakeServer) -> None:
    server = make_server(seeded=False)

    assert not server.stop()
    assert not server.home.exists()


def test_a_new_server_is_durable_and_independent_of_the_machines_locales(make_server: MakeServer) -> None:
    expected = {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "max_connections": "1500",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "lc_messages": "C",
        "TimeZone": "UTC",
        "log_timezone": "UTC",
    }

    url = make_server(seeded=False).ensure_running()

    assert {name: query(url, f"SHOW {name}") for name in expected} == expected
    locale = "SELECT concat(datlocprovider, datlocale) FROM pg_database WHERE datname = 'orders'"
    assert query(url, locale) == "bC.UTF-8"
    assert query(url, "SELECT current_user || session_user || current_database()") == "orders" * 3


def test_files_that_are_there_already_get_room_for_every_program(server: Server) -> None:
    assert "\nmax_connections = 100" in (server.place.data / "postgresql.conf").read_text()

    url = server.ensure_running()

    (most_processes,) = re.findall(r"to (\d+)", settings.API_PROCESSES.kind.expected)
    with ExitStack() as taken:
        for _ in range(8 * PER_API_PROCESS + 4 * PER_WORKER):
            taken.enter_context(psycopg.connect(url))
        assert query(url, "SELECT 1") == 1
    assert int(most_processes) * PER_API_PROCESS + 30 * PER_WORKER < int(query(url, "SHOW max_connections"))


def test_settings_of_the_caller_win(make_server: MakeServer) -> None:
    url = make_server(settings={"fsync": "off", "max_connections": "7"}).ensure_running()

    assert (query(url, "SHOW fsync"), query(url, "SHOW max_connections")) == ("off", "7")


@pytest.mark.parametrize("name", ["100% my own $HOME `id` 'ä\"", "one, two", "deep " + "x" * 195])
def test_a_folder_of_any_name_works_with_every_client(
    make_server: MakeServer, folder: Path, name: str
) -> None:
    (folder / name).mkdir()
    server = make_server(folder / name / ".data")

    url = server.ensure_running()

    assert len(os.fsencode(address.folder(server.place) / address.SOCKET)) < 107
    assert query(url, "SELECT 1") == 1
    psql = subprocess.check_output([binaries.find() / "psql", "-d", url, "-Atc", "SELECT 2"], text=True)
    assert psql == "2\n"
    engine = create_engine(make_url(url.replace("postgresql:", "postgresql+psycopg:")))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 3")).scalar() == 3
    engine.dispose()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_neither_the_callers_environment_nor_its_umask_matters(make_server: MakeServer, umask: int) -> None:
    server = make_server(seeded=False)

    caller = call(starting(server), env={**os.environ, "PYTHONPATH": str(CHECKOUT), **HOSTILE}, umask=umask)
    url, error = caller.communicate()

    assert (url.strip(), complaints(error)) == (server.url, "")
    assert query(server.url, "SHOW TimeZone") == "UTC"
    modes = {path.stat().st_mode & 0o077 for path in server.home.rglob("*") if not path.is_socket()}
    assert modes == {0}


def test_an_environment_that_libpq_refuses_is_an_error_at_once(server: Server) -> None:
    caller = call(starting(server), env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PGSERVICE": "none"})
    _, error = caller.communicate()

    assert "StartError: libpq refuses a PG… variable" in error


def test_the_server_outlives_its_starter_and_holds_nothing_of_it(server: Server) -> None:
    caller = call(starting(server), start_new_session=True)
    # Comes back only when nobody holds the pipes any more.
    pid = postmaster(caller.communicate()[0].strip())

    opened = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}

    assert os.getsid(pid) != caller.pid
    assert os.fspath(server.place.folder / "lock") not in opened


def test_ctrl_c_for_the_starter_leaves_the_server_running(server: Server) -> None:
    # A shell's background job, which these tests may be, hands an ignored SIGINT down.
    waiting = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print(flush=True); signal.pause()"
    code = f"{starting(server)}; {waiting}"
    caller = call(code, start_new_session=True)
    assert caller.stdout is not None
    url = caller.stdout.readline().strip()

    os.killpg(caller.pid, signal.SIGINT)
    caller.communicate()

    assert query(url, "SELECT 1") == 1


def test_a_dropped_database_is_made_again(server: Server) -> None:
    server.ensure_running()
    query(address.url(server.place, database="postgres"), "DROP DATABASE orders")

    assert query(server.ensure_running(), "SELECT current_database()") == "orders"


def test_a_server_that_lost_its_socket_is_started_anew(server: Server) -> None:
    first = postmaster(server.ensure_running())
    for path in address.folder(server.place).iterdir():
        path.unlink()

    second = postmaster(server.ensure_running())

    assert first != second
    assert not alive(first)


def test_the_log_keeps_to_one_file_for_each_day_of_the_week(server: Server) -> None:
    url = server.ensure_running()

    assert query(url, "SELECT pg_current_logfile()").startswith(str(server.place.log))
    assert query(url, "SHOW log_filename") == "%a.log"
    assert query(url, "SHOW log_truncate_on_rotation") == "on"


def test_a_server_that_can_not_start_says_why_in_one_line(make_server: MakeServer) -> None:
    server = make_server(settings={"shared_buffers": "plenty"})

    with pytest.raises(StartError, match="invalid value for parameter") as caught:
        server.ensure_running()

    assert len(str(caught.value).splitlines()) == 1
    assert make_server(server.home).ensure_running()


def test_a_server_that_gives_up_after_its_log_was_opened_says_why(make_server: MakeServer) -> None:
    server = make_server()
    (server.home / "data" / "global" / "pg_control").write_bytes(b"")

    with pytest.raises(StartError, match="pg_control"):
        server.ensure_running()


def test_a_file_in_the_place_of_the_folder_is_an_error_that_names_it(folder: Path) -> None:
    (folder / ".data").touch()

    with pytest.raises(StartError, match=r"\.data is no folder"):
        Server(folder / ".data").ensure_running()


def test_a_folder_that_holds_no_database_is_not_overwritten(make_server: MakeServer) -> None:
    server = make_server()
    (server.home / "data" / "PG_VERSION").unlink()

    with pytest.raises(StartError, match="no PostgreSQL data folder"):
        server.ensure_running()


def test_initdb_killed_half_way_is_not_taken_for_a_database(make_server: MakeServer) -> None:
    server = make_server(seeded=False)
    caller = call(starting(server), start_new_session=True)
    until(lambda: list(server.home.glob("new-*/base")) if server.home.exists() else False)

    kill(caller.pid)
    caller.communicate()

    assert not server.place.data.exists()
    assert query(server.ensure_running(), "SELECT 1") == 1


def test_log_of_the_server_has_an_errors_first_line_and_nothing_of_its_row(make_server: MakeServer) -> None:
    server = make_server()
    with psycopg.connect(server.ensure_running(), autocommit=True) as connection:
        connection.execute("CREATE TABLE shop (name text PRIMARY KEY, price int CHECK (price > 0))")
        for statement in (
            "INSERT INTO shop VALUES ('secret tea', -1)",
            "INSERT INTO shop VALUES ('secret tea', 1), ('secret tea', 1)",
            "DO $$ BEGIN PERFORM 'secret tea', 1 / 0; END $$",
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(statement)
        with pytest.raises(psycopg.Error), connection.cursor().copy("COPY shop FROM STDIN") as copying:
            copying.write("secret tea\tcheap\n")

    words = "".join(path.read_text() for path in server.place.log.glob("*.log"))
    assert "violates check constraint" in words
    assert "violates unique constraint" in words
    assert "division by zero" in words
    assert "secret tea" not in words
