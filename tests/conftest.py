"""A real PostgreSQL for every test: one server a run, one freshly migrated database a test.

The server is a temporary embedded one, or the one that `TEST_DATABASE_URL` names (its role must be
allowed to create databases). `DATABASE_URL` and `ORDERS_*` of the caller are out of sight.

With `TEST_POOLER=pgbouncer` every test's database is reached through a PgBouncer in transaction mode, and
only tests that have one run; those marked `direct` can't.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from schema.runtime.connection import Connection
from tests.databases import Databases
from tests.pooler import Pooler
from tests.programs import missing
from tests.servers import reachable_folder, temporary_server

pytest_plugins = ["tests.roles", "tests.rows"]

ROOT = Path(__file__).parent.parent
TEST_DATABASE_URL = os.environ.get("TEST_DATABASE_URL")
TEST_POOLER = os.environ.get("TEST_POOLER")

for _name in [name for name in os.environ if name.startswith(("ORDERS_", "PG")) or name == "DATABASE_URL"]:
    del os.environ[_name]


def pytest_configure() -> None:
    """Take signals as usual: a shell's background job ignores SIGINT, and nohup SIGHUP."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """With a pooler leave out what has no database behind it, or servers and poolers of its own."""
    if TEST_POOLER:
        apart = {"private_server", "start_pooler"}
        pooled = [item for item in items if "way" in item.fixturenames and not apart & {*item.fixturenames}]
        config.hook.pytest_deselected(items=[item for item in items if item not in pooled])
        items[:] = pooled


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a program that is not here, and name its Debian package."""
    for marker in item.iter_markers("needs"):
        if packages := missing(*marker.args):
            pytest.skip(f"needs a Debian package: apt-get install {packages}")


@pytest.fixture(scope="session")
def store() -> Iterator[Path]:
    """Where servers keep what their user can't reach elsewhere: not in the store of the machine."""
    with reachable_folder("orders-test-store-") as folder:
        yield folder / "store"


@pytest.fixture(scope="session")
def server_url(store: Path) -> Iterator[str]:
    if TEST_DATABASE_URL:
        yield TEST_DATABASE_URL
        return
    # What survives a power cut is not what these tests ask; the embedded server's own tests leave it on.
    with temporary_server(store=store, fsync="off") as server:
        yield server.ensure_running()


@pytest.fixture(scope="session")
def common_pooler(server_url: str) -> Iterator[Pooler | None]:
    """The pooler that every test's database is reached through, if any."""
    if not TEST_POOLER:
        yield None
        return
    assert TEST_POOLER == "pgbouncer", f"TEST_POOLER is {TEST_POOLER!r}, expected pgbouncer"
    with Pooler(server_url) as pooler:
        yield pooler


@pytest.fixture(scope="session")
def way(common_pooler: Pooler | None) -> Callable[[str], str]:
    """Turn a URL of the server's into the one that tests use: the same, or one through the pooler."""
    return common_pooler.through if common_pooler else lambda url: url


@pytest.fixture(scope="session")
def spare_databases(server_url: str, common_pooler: Pooler | None) -> Iterator[Databases]:
    databases = Databases(server_url, prefix=f"orders_test_{secrets.token_hex(4)}", pooler=common_pooler)
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def template(spare_databases: Databases) -> str:
    """The migrated database that every test's own is a copy of."""
    return spare_databases.template


@pytest.fixture
def database_url(spare_databases: Databases, way: Callable[[str], str]) -> Iterator[str]:
    """A migrated database of the test's own."""
    with spare_databases.migrated() as url:
        yield way(url)


@pytest.fixture
def empty_database_url(spare_databases: Databases, way: Callable[[str], str]) -> Iterator[str]:
    """A database that no migration has touched."""
    with spare_databases.empty() as url:
        yield way(url)


@pytest.fixture
def start_pooler(server_url: str) -> Iterator[Callable[..., Pooler]]:
    """Start a PgBouncer of the test's own, with any settings; the test says that it needs one."""
    with ExitStack() as stack:
        yield lambda url=server_url, **settings: stack.enter_context(Pooler(url, **settings))


@pytest.fixture
def connect(database_url: str) -> Iterator[Callable[[], Connection]]:
    """Open as many connections to the test's database as it likes."""
    with ExitStack() as stack:

        def opened() -> Connection:
            connection = stack.enter_context(Connection.open(database_url, name="test"))
            assert connection.direct is not bool(TEST_POOLER), "the test went another way than it should"
            return connection

        yield opened


@pytest.fixture
def connection(connect: Callable[[], Connection]) -> Connection:
    return connect()


@pytest.fixture
def durabilities(connection: Connection) -> Callable[[], list[str]]:
    """Make the trigger function `see_durability`; return the `synchronous_commit` of each of its runs."""
    connection.execute("""
        CREATE TABLE durabilities (value text);
        CREATE FUNCTION see_durability() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO durabilities VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
    """)
    return lambda: [value for (value,) in connection.execute("SELECT value FROM durabilities")]


Alter = Callable[..., None]


@pytest.fixture
def alter(connection: Connection) -> Iterator[Alter]:
    """Give the test's database defaults of its own, by name; later sessions have them."""
    (database,) = connection.one("SELECT quote_ident(current_database())")

    def altered(**settings: str) -> None:
        for name, value in settings.items():
            connection.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")

    yield altered
    # What cleans up after the test has no session of ours.
    connection.execute(f"ALTER DATABASE {database} RESET ALL")


def wait_until(condition: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """Return the condition's first true value; fail if it has none within the time."""
    give_up_at = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < give_up_at, "the condition never came true"
        time.sleep(0.02)
    return value


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture
def keep_signal_handlers() -> Iterator[None]:
    """Undo what a test does to the signals of this process; its children would inherit it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def copy_of_the_checkout() -> Callable[[Path], Path]:
    """Put what a clone of the working tree would have into a folder; return the folder."""

    def copy(target: Path) -> Path:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
        return target

    return copy
