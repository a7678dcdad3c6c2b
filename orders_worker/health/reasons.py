"""Whether a worker makes progress, judged by its watchdogs. Nothing here asks the database, or waits."""

from dataclasses import dataclass

from schema.errors import DatabaseFullError, DatabaseReadOnlyError, StatementEndedError, StatementRefusedError
from schema.runtime import logs
from schema.runtime.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a worker makes no progress: a `name` to alert on, a `detail` to read.

    Only the log shows the `error`: its words may name a host or a role, or come from a user's trigger.
    """

    name: str
    detail: str
    error: BaseException | None

    @property
    def detail_and_error(self) -> str:
        """What the log shows."""
        return self.detail if self.error is None else f"{self.detail}: {logs.first_line(self.error)}"


@dataclass(frozen=True, slots=True)
class Health:
    """The watchdogs of a worker's parts.

    `rounds`: the main loop turns. `exchange`: the database answers it. `claiming`: claims take hold.
    `connections`: a waiting handler gets one. `schema`: it fits this release.
    """

    rounds: Watchdog
    exchange: Watchdog
    claiming: Watchdog
    heartbeat: Watchdog
    housekeeping: Watchdog
    connections: Watchdog
    schema: Watchdog

    def stalled(self) -> list[Reason]:
        """Return the reason why the main loop stands still, an empty list when it turns."""
        return _overdue((self.rounds, "rounds_stalled", "the main loop has not come round"))

    def reasons(self) -> list[Reason]:
        """Return the reasons why the worker makes no progress, an empty list when it does."""
        stalled = self.stalled()
        others = _overdue(
            (self.exchange, "exchange_stalled", "nothing could be claimed or completed"),
            (
                self.claiming,
                "claims_suppressed",
                "orders in line and slots free, but a trigger or rule undid each claim",
            ),
            (self.heartbeat, "heartbeat_lost", "the lease was not renewed"),
            (self.housekeeping, "housekeeping_lost", "no wake-up was heard and nothing rescued"),
            (self.connections, "no_handler_connection", "no handler that waits for a connection got one"),
            (self.schema, "schema_unfit", "the schema did not fit this program"),
        )
        if (stalled or others) and self._database_is_silent():
            others = [_reason(self.housekeeping, "database_away", "no answer from the database")]
        return stalled + list({reason.name: reason for reason in others}.values())

    def _database_is_silent(self) -> bool:
        awaited = [each for each in (self.exchange, self.heartbeat, self.housekeeping) if not each.resting]
        return all(
            watchdog.overdue
            if watchdog.error is None
            else not isinstance(watchdog.error, StatementEndedError | StatementRefusedError)
            for watchdog in awaited
        )


def _overdue(*meanings: tuple[Watchdog, str, str]) -> list[Reason]:
    return [_reason(*each) for each in meanings if each[0].overdue]


def _reason(watchdog: Watchdog, name: str, words: str) -> Reason:
    error = watchdog.error
    if isinstance(error, DatabaseReadOnlyError):
        name = "database_read_only"
    elif isinstance(error, DatabaseFullError):
        name = "database_full"
    elif isinstance(error, StatementRefusedError) and error.is_forbidden:
        name = "privilege_missing"
        words = f"the role lacks a privilege, which `orders grants` prints: {words}"
    return Reason(name, f"{words} for {watchdog.seconds:.0f} s", error)
