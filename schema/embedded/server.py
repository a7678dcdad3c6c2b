"""Start and stop the PostgreSQL of one folder, from any number of processes at once."""

import signal
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path

import psycopg
from psycopg import conninfo, pq

from schema.embedded import address, places, processes
from schema.embedded.environments import NEUTRAL_PARAMETERS
from schema.embedded.folders import STORE
from schema.embedded.launch import SHUTDOWN_SECONDS, launch
from schema.embedded.lock import locked
from schema.embedded.patience import Patience
from schema.embedded.places import Place
from schema.errors import StartError
from schema.runtime.driver_errors import unavailable

# Recovery after a crash replays what was written since the last checkpoint: minutes on a slow disk.
RECOVERY_SECONDS = 300

_MODES = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


@dataclass(frozen=True)
class Server:
    """The PostgreSQL whose files are in `home`.

    `settings` are server settings for when this object starts it (`{"fsync": "off"}` in a test).
    `programs` is a folder with PostgreSQL's programs; by default those that suit the files, in the wheel or
    installed. `store` is a folder for those files and a copy of the wheel's programs that the server's user
    can't reach in their own places.
    """

    home: Path
    _: KW_ONLY
    settings: Mapping[str, str] = field(default_factory=dict)
    programs: Path | None = None
    store: Path = STORE

    @property
    def url(self) -> str:
        """The libpq URL, whether the server runs or not; `StartError` if there never was one."""
        if not self.place.data.exists():
            raise StartError(f"there is no database in {self.place.folder} yet: start it first")
        return address.url(self.place)

    @cached_property
    def place(self) -> Place:
        """Where the files are, which is not in `home` if the server's user can't reach that."""
        return places.locate(self.home, self.store)

    def ensure_running(self) -> str:
        """Return a libpq URL of the server, on which a connection has just succeeded.

        Starts it, makes the data folder and the database, ends what a killed server left behind and
        waits for its recovery, as needed. Raises `StartError` with the end of the server's log.
        """
        if not self.accepts():
            self.place.make()
            with locked(self.place):
                if not self.accepts():
                    self._bring_up()
                    self._create_database()
        return self.url

    def accepts(self) -> bool:
        """Tell whether a connection succeeds."""
        if self._ping() != pq.Ping.OK:
            return False
        try:
            psycopg.connect(_neutral(self.url)).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, mode: str = "fast") -> bool:
        """Stop the server, wait until it has stopped, and tell whether there was one.

        `mode` is `fast` or `immediate` (as a crash): https://www.postgresql.org/docs/18/server-shutdown.html
        """
        if not processes.serving(self.place.data):
            return False
        with locked(self.place):
            self._end(_MODES[mode])
        return True

    def _bring_up(self) -> None:
        """Start the server unless it lives, and wait until it answers."""
        patience = Patience(RECOVERY_SECONDS, f"PostgreSQL in {self.place.folder} to start")
        launched = False
        while (answer := self._ping()) != pq.Ping.OK:
            if answer == pq.Ping.NO_ATTEMPT:
                raise StartError(
                    "libpq refuses a PG… variable of the environment, such as PGSERVICE: unset it"
                )
            # A server that answers but doesn't serve yet is recovering, or is on its way down.
            if answer != pq.Ping.REJECT and not self._is_alive():
                if launched:
                    raise StartError(f"PostgreSQL didn't start: {self.place.last_words()}")
                launch(self.place, self.programs, settings=self.settings)
                launched = True
            patience.wait()

    def _ping(self) -> int:
        if not self.place.data.exists() or not address.is_ready(self.place):
            return pq.Ping.NO_RESPONSE
        return pq.PGconn.ping(_neutral(self.url).encode())

    def _is_alive(self) -> bool:
        """Tell whether a server lives that will answer; one that lost its socket is ended first."""
        if processes.postmaster(self.place.data) is None:
            return False
        try:
            state = (self.place.data / "postmaster.pid").read_text().splitlines()[7].strip()
        except (OSError, ValueError, IndexError):
            return True
        if state != "ready" or (address.folder(self.place) / address.SOCKET).exists():
            return True
        self._end(signal.SIGINT)
        return False

    def _create_database(self) -> None:
        """Create the database, which is missing in a new data folder and after a DROP DATABASE."""
        try:
            url = _neutral(address.url(self.place, database="postgres"))
            with psycopg.connect(url, autocommit=True) as admin:
                found = admin.execute("SELECT FROM pg_database WHERE datname = %s", [address.DATABASE])
                if found.rowcount == 0:
                    admin.execute(f"CREATE DATABASE {address.DATABASE}")
        except psycopg.OperationalError as error:
            raise StartError(f"PostgreSQL runs, but can't be used: {unavailable(error)}") from error

    def _end(self, sent: signal.Signals) -> None:
        """Signal the main process, which ends its children; end those that a killed one left."""
        patience = Patience(SHUTDOWN_SECONDS, f"PostgreSQL in {self.place.folder} to stop")
        processes.end(self.place.data, sent, patience=patience, main_only=True)
        processes.end(self.place.data, signal.SIGKILL, patience=patience)


def _neutral(url: str) -> str:
    """Return the connection string with what PG… variables in our own environment could change set."""
    return conninfo.make_conninfo(url, **NEUTRAL_PARAMETERS)
