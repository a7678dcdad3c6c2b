import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from schema.embedded import backup, cluster
from schema.embedded.server import Server
from schema.errors import StartError
from tests.embedded.conftest import MakeServer, query, until
from tests.servers import reachable_folder


def insert_while(url: str, acknowledged: list[int], *, go_on: threading.Event) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while go_on.is_set():
            connection.execute("INSERT INTO numbers VALUES (%s)", [len(acknowledged)])
            acknowledged.append(len(acknowledged))


def numbers(url: str) -> set[int]:
    with psycopg.connect(url) as connection:
        return {number for (number,) in connection.execute("SELECT number FROM numbers")}


@pytest.fixture(scope="module")
def first(seed: Path, store: Path) -> Iterator[tuple[Path, Path]]:
    """A stopped server's home in which the answer is 7, and a backup of it in which it is 42."""
    with reachable_folder("embedded-backup-") as folder:
        subprocess.run(["cp", "-a", seed, folder / ".data"], check=True)
        server = Server(folder / ".data", store=store)
        query(server.ensure_running(), "CREATE TABLE kept AS SELECT 42 AS answer")
        taken = backup.take(server)
        query(server.url, "UPDATE kept SET answer = 7")
        server.stop()
        yield server.home, taken


@pytest.fixture
def kept(first: tuple[Path, Path], store: Path) -> Server:
    """The stopped server itself, for what must leave it as it is."""
    return Server(first[0], store=store)


@pytest.fixture
def server(first: tuple[Path, Path], folder: Path, make_server: MakeServer) -> Server:
    subprocess.run(["cp", "-a", first[0], folder / ".data"], check=True)
    return make_server()


@pytest.fixture
def taken(first: tuple[Path, Path], folder: Path) -> Path:
    # Links: a change must replace the file.
    subprocess.run(["cp", "-al", first[1], folder / "taken"], check=True)
    return folder / "taken"


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def test_a_backup_under_load_holds_every_row_acknowledged_before_it_began(server: Server) -> None:
    url = server.ensure_running()
    query(url, "CREATE TABLE numbers (number int PRIMARY KEY)")
    acknowledged: list[int] = []
    go_on = threading.Event()
    go_on.set()
    writer = threading.Thread(target=insert_while, args=(url, acknowledged), kwargs={"go_on": go_on})
    writer.start()
    until(lambda: len(acknowledged) > 100)

    before = len(acknowledged)
    target = backup.take(server)
    until(lambda: len(acknowledged) > before + 100)
    go_on.clear()
    writer.join()
    server.stop()
    aside = backup.restore(server, target)

    kept = numbers(server.ensure_running())
    assert kept >= set(range(before))
    assert kept == set(range(len(kept)))
    with psycopg.connect(server.url) as connection:
        connection.execute("SET enable_seqscan = off")
        assert connection.execute("SELECT count(*) FROM numbers WHERE number >= 0").fetchone() == (len(kept),)
    assert aside is not None
    assert cluster.version(aside) == "18"


def test_a_backup_goes_to_a_folder_beside_the_data_and_is_its_owners_alone(server: Server) -> None:
    target = backup.take(server)

    assert target.parent == server.home.parent / "backups"
    assert target.stat().st_mode & 0o077 == 0
    assert target.stat().st_uid == server.home.parent.stat().st_uid


def test_a_backup_does_not_go_where_something_is(kept: Server, folder: Path) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "something").touch()

    with pytest.raises(StartError, match="isn't an empty folder"):
        backup.take(kept, folder / "full")

    assert kept.stop()


@pytest.mark.slow
def test_a_restored_server_has_the_rows_of_the_backup_and_the_old_data_stays_aside(
    server: Server, taken: Path
) -> None:
    aside = backup.restore(server, taken)

    assert query(server.ensure_running(), "SELECT answer FROM kept") == 42
    server.stop()
    assert aside is not None
    cluster.put(server.place.data, server.place.folder / "was-restored")
    cluster.put(aside, server.place.data)
    assert query(server.ensure_running(), "SELECT answer FROM kept") == 7


@pytest.mark.slow
def test_a_backup_is_restored_where_nothing_was(make_server: MakeServer, taken: Path, folder: Path) -> None:
    fresh = make_server(folder / "fresh", seeded=False)

    assert backup.restore(fresh, taken) is None

    assert query(fresh.ensure_running(), "SELECT answer FROM kept") == 42


@pytest.mark.slow
def test_a_backup_that_was_carried_about_with_open_modes_is_restored(
    server: Server, first: tuple[Path, Path], folder: Path
) -> None:
    taken = folder / "taken"
    subprocess.run(["cp", "-a", first[1], taken], check=True)
    for path in (taken, *taken.rglob("*")):
        path.chmod(0o777)

    backup.restore(server, taken)

    assert query(server.ensure_running(), "SELECT answer FROM kept") == 42


def test_nothing_is_restored_while_the_server_runs(kept: Server, first: tuple[Path, Path]) -> None:
    kept.ensure_running()

    with pytest.raises(StartError, match="stop it first"):
        backup.restore(kept, first[1])

    assert query(kept.url, "SELECT answer FROM kept") == 7
    assert kept.stop()


def damage_a_file(taken: Path) -> None:
    path = taken / "global" / "pg_control"
    rewrite(path, b"x" + path.read_bytes()[1:])


def lose_a_file(taken: Path) -> None:
    (taken / "global" / "pg_control").unlink()


def add_a_file(taken: Path) -> None:
    (taken / "base" / "new").touch()


def lose_the_log(taken: Path) -> None:
    for path in (taken / "pg_wal").glob("0*"):
        path.unlink()


def lose_the_manifest(taken: Path) -> None:
    (taken / "backup_manifest").unlink()


def change_the_manifest(taken: Path) -> None:
    path = taken / "backup_manifest"
    entry = json.loads(path.read_text())["Files"][0]
    rewrite(path, path.read_bytes().replace(entry["Checksum"].encode(), b"0" * 64))


def cut_the_manifest(taken: Path) -> None:
    path = taken / "backup_manifest"
    rewrite(path, path.read_bytes()[:1000])


@pytest.mark.parametrize(
    "damage",
    [
        damage_a_file,
        lose_a_file,
        add_a_file,
        lose_the_log,
        lose_the_manifest,
        change_the_manifest,
        cut_the_manifest,
    ],
)
def test_a_damaged_backup_is_not_restored(kept: Server, taken: Path, damage: Callable[[Path], None]) -> None:
    damage(taken)

    with pytest.raises(StartError, match=str(taken)):
        backup.restore(kept, taken)

    assert query(kept.ensure_running(), "SELECT answer FROM kept") == 7
    assert kept.stop()


def test_what_is_no_backup_is_not_restored(kept: Server, folder: Path) -> None:
    with pytest.raises(StartError, match="PG_VERSION"):
        backup.restore(kept, folder)


def test_a_backup_of_another_version_is_not_restored(kept: Server, taken: Path) -> None:
    rewrite(taken / "PG_VERSION", b"16\n")

    with pytest.raises(StartError, match="PostgreSQL 16"):
        backup.restore(kept, taken)


def test_a_restore_killed_before_its_last_step_is_finished_by_the_next_start(
    server: Server, taken: Path
) -> None:
    backup.restore(server, taken)
    # The state between the last two steps.
    server.place.data.rename(server.place.restored)

    assert query(server.ensure_running(), "SELECT answer FROM kept") == 42


def test_a_restore_killed_earlier_leaves_the_old_data(server: Server) -> None:
    server.place.account.run(["mkdir", server.place.restored])

    assert query(server.ensure_running(), "SELECT answer FROM kept") == 7
    assert not server.place.restored.exists()
