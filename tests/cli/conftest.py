"""The commands as they are typed, and a database with orders in any state."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.statements.conftest import Queue

from schema.runtime.connection import Connection

ORDERS = [sys.executable, "-c", "import sys; from schema.cli.main import main; sys.exit(main())"]

Done = subprocess.CompletedProcess[str]


def call(*arguments: object, url: str | None, **variables: str) -> Done:
    """Run `orders` with nobody to ask, and DATABASE_URL set to `url` alone."""
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    if url is not None:
        environment["DATABASE_URL"] = url
    done = subprocess.run(
        [*ORDERS, *map(str, arguments)],
        env={**environment, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def orders(database_url: str) -> Callable[..., Done]:
    """Run a command on the test's database, which must end with `status`."""

    def run(*arguments: object, status: int = 0, **variables: str) -> Done:
        done = call(*arguments, url=database_url, **variables)
        assert done.returncode == status, done
        return done

    return run


@pytest.fixture
def facts(orders: Callable[..., Done]) -> Callable[..., Any]:
    """Run a command with --json; return its one document."""

    def run(*arguments: object, status: int = 0) -> Any:
        return json.loads(orders(*arguments, "--json", status=status).stdout)

    return run


@pytest.fixture
def queue(connection: Connection) -> Queue:
    return Queue(connection)
