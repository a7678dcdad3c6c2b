import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from schema.connection import Connection

Orders = Callable[..., subprocess.CompletedProcess[str]]


def orders(*arguments: str, url: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    if url is not None:
        environment["DATABASE_URL"] = url
    return subprocess.run(
        [sys.executable, "-c", "import sys; from schema.cli import main; sys.exit(main())", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_migrate_creates_the_tables_and_may_be_repeated(empty_database_url: str) -> None:
    first = orders("migrate", url=empty_database_url)
    second = orders("migrate", url=empty_database_url)

    assert (first.returncode, second.returncode) == (0, 0)
    assert "revision 0003" in second.stdout


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_command_on_an_empty_database_names_the_remedy(empty_database_url: str, command: str) -> None:
    done = orders(command, url=empty_database_url)

    assert done.returncode == 1
    assert "orders migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_pause_stands_until_resume(database_url: str, connection: Connection) -> None:
    orders("pause", url=database_url)
    paused = connection.execute("SELECT paused_at IS NOT NULL FROM queue").fetchone()
    orders("resume", url=database_url)
    resumed = connection.execute("SELECT paused_at IS NOT NULL FROM queue").fetchone()

    assert (paused, resumed) == ((True,), (False,))


def test_a_malformed_url_is_named_without_its_password() -> None:
    done = orders("pause", url="postgresql://me:hunter2@host:port:port/x")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "DATABASE_URL" in done.stderr
    assert "hunter2" not in done.stderr


def test_an_unknown_command_is_bad_usage() -> None:
    done = orders("refresh", url=None)

    assert done.returncode == 2
    assert "migrate" in done.stderr


def test_with_a_url_nothing_of_the_embedded_server_is_imported(database_url: str) -> None:
    program = (
        "import sys; from schema.cli import main; main(['pause']); "
        "import orders_api.__main__, orders_worker.__main__; "
        "sys.exit(any('embedded' in name or 'pgserver' in name for name in sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "DATABASE_URL": database_url})

    assert done.returncode == 0
