"""Whether a worker gets on, judged by what its parts await. Nothing here asks the database, or waits."""

from dataclasses import dataclass

import psycopg

from schema.errors import DatabaseUnavailableError
from schema.runtime import logs
from schema.runtime.watchdog import Pulse


@dataclass(frozen=True, slots=True)
class Ailment:
    """Why a worker does not get on: a `name` to alert on, a `detail` to read.

    The words of an `error` are for the log alone: they may name a host or a role, or be a user's trigger's.
    """

    name: str
    detail: str
    error: BaseException | None

    @property
    def detail_and_error(self) -> str:
        """What the log shows."""
        return self.detail if self.error is None else f"{self.detail}: {logs.first_line(self.error)}"


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the parts of a worker await.

    `rounds` are the dispatcher's, `exchange` the answer that some of them ask for, `claims` that what it
    finds becomes this worker's, `connections` those of handlers, `schema` one that fits this release.
    """

    rounds: Pulse
    exchange: Pulse
    claims: Pulse
    heartbeat: Pulse
    housekeeping: Pulse
    connections: Pulse
    schema: Pulse

    def ailments(self) -> list[Ailment]:
        """Return what keeps the worker from its work; nothing if all is well."""
        weak = [_ailment(*each) for each in self._meanings() if each[0].weak]
        if weak and self._database_is_silent():
            weak = [each for each in weak if each.name == "rounds_stalled"]
            weak.append(_ailment(self.housekeeping, "database_away", "no answer from the database"))
        return list({ailment.name: ailment for ailment in weak}.values())

    def _meanings(self) -> list[tuple[Pulse, str, str]]:
        return [
            (self.rounds, "rounds_stalled", "the main loop has not come round"),
            (self.exchange, "exchange_stalled", "nothing could be claimed or completed"),
            (
                self.claims,
                "claims_suppressed",
                "orders in line and slots free, but a trigger or rule undid each claim",
            ),
            (self.heartbeat, "heartbeat_lost", "the lease was not renewed"),
            (self.housekeeping, "housekeeping_lost", "no wake-up was heard and nothing rescued"),
            (self.connections, "no_handler_connection", "no handler that waits for a connection got one"),
            (self.schema, "schema_unfit", "the schema did not fit this program"),
        ]

    def _database_is_silent(self) -> bool:
        awaited = [each for each in (self.exchange, self.heartbeat, self.housekeeping) if not each.resting]
        return all(pulse.weak or pulse.error is not None for pulse in awaited)


def _ailment(pulse: Pulse, name: str, words: str) -> Ailment:
    error = pulse.error
    return Ailment(
        "database_read_only" if _says_read_only(error) else name,
        f"{words} for {pulse.seconds:.0f} s",
        error,
    )


def _says_read_only(error: BaseException | None) -> bool:
    """Tell whether the server takes no writes: another may be the primary now, or its disk is full."""
    cause = error.__cause__ if isinstance(error, DatabaseUnavailableError) else error
    # libpq has no code for what it finds while it connects, only words.
    return isinstance(cause, psycopg.errors.ReadOnlySqlTransaction) or (
        isinstance(cause, psycopg.OperationalError) and "session is read-only" in str(cause)
    )
