"""Roles that have what `orders grants` gives, on a server where nobody else is let in."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg import conninfo

from schema import grants
from schema.runtime.connection import Connection
from tests.databases import Databases
from tests.servers import reachable_folder, temporary_server

KINDS = {"api": grants.API, "worker": grants.WORKER, "reader": grants.READER}

RULES = """
local all api,worker,reader scram-sha-256
local all all peer map=owner
"""

CLOSE = """
REVOKE ALL ON DATABASE {database} FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC
"""


@dataclass(frozen=True)
class Guarded:
    """A migrated database, its owner's `url`, and what its roles have."""

    url: str

    def url_of(self, role: str) -> str:
        return conninfo.make_conninfo(self.url, user=role, password=role)

    def execute(self, statement: str) -> None:
        with Connection.open(self.url, name="test") as connection:
            connection.execute(statement)

    def let_in(self, role: str) -> None:
        """Let a role as far as it gets without a privilege on any table."""
        with Connection.open(self.url, name="test") as connection:
            for each in grants.grants(connection, role, {}):
                connection.execute(each.statement)

    def grant(self, *kinds: str) -> None:
        with Connection.open(self.url, name="test") as connection:
            for kind in kinds:
                grants.apply(connection, list(grants.grants(connection, kind, KINDS[kind])))


@pytest.fixture(scope="session")
def guarded_databases(store: Path) -> Iterator[Databases]:
    with reachable_folder() as folder:
        rules = folder / "pg_hba.conf"
        rules.write_text(RULES)
        with temporary_server(store=store, fsync="off", hba_file=str(rules)) as server:
            url = server.ensure_running()
            with Connection.open(url, name="test") as connection:
                for role in KINDS:
                    connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
            databases = Databases(url, prefix="guarded")
            yield databases
            databases.close()


@pytest.fixture
def guarded(guarded_databases: Databases) -> Iterator[Guarded]:
    """A database that nobody but its owner is let into yet."""
    with guarded_databases.migrated() as url:
        found = Guarded(url)
        found.execute(CLOSE.format(database=conninfo.conninfo_to_dict(url)["dbname"]))
        yield found
