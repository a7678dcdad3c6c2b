"""One run: everything is started, faults happen while clients post, all is waited for, and judged."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from typing import Any

from schema.runtime.connection import Connection
from tests.chaos import report, verdict
from tests.chaos.broken import DEFECTS
from tests.chaos.clients import Crowd
from tests.chaos.evidence import Evidence
from tests.chaos.faults import PAUSE_SECONDS, Injector
from tests.chaos.scene import Scene
from tests.chaos.settings import ChaosSettings
from tests.chaos.stage import LEASE_SECONDS, find_faketime, set_up
from tests.chaos.watch import Pulse, Sums

CLIENTS = 8
ORDERS_A_SECOND = 60.0

HASTE_SECONDS = 0.5
"""The pause between faults that are to bring a seeded defect to light."""

FIRST_SECONDS = 20.0
"""How long the first orders may take; then faults begin all the same, and the judge has to find out."""

PLACING_SECONDS = 60.0
"""How long the last orders may take to be placed once nothing is wrong any more."""

PATIENCE_SECONDS = 30.0
"""How long nothing may move at the end, while orders are open."""


@dataclass(frozen=True, slots=True)
class Watches:
    """What looks on meanwhile."""

    pulse: Pulse
    sums: Sums

    @property
    def failures(self) -> list[str]:
        """What went wrong with the watches themselves."""
        return [*self.pulse.failures, *self.sums.failures]

    def close(self) -> None:
        """End both."""
        self.pulse.close()
        self.sums.close()


def run(settings: ChaosSettings) -> dict[str, Any]:
    """Do it all, and return the report. Nothing is left behind but the logs, if a promise was broken."""
    with ExitStack() as cleaning:
        scene, ports = set_up(settings, cleaning)
        scene.say(f"chaos for {settings.duration_seconds:g} s: SEED={settings.seed}")
        watches = Watches(Pulse(scene.database.connect), Sums(scene.database.connect))
        # A seeded defect has the faults that show it: a worker that ends by itself may be the one it takes.
        crowd = Crowd(
            ports, clients=CLIENTS, rate=ORDERS_A_SECOND, seed=settings.seed, deadly=not settings.defect
        )
        pause_seconds = HASTE_SECONDS if settings.defect else PAUSE_SECONDS
        injector = Injector(scene, _kinds(settings), Random(settings.seed), pause_seconds=pause_seconds)
        cleaning.callback(_abort, scene, crowd, injector)
        _live(scene, crowd, injector, watches, seconds=settings.duration_seconds)
        evidence = Evidence(
            submissions=[each for record in crowd.records for each in record.submissions],
            exits=scene.supervisor.exits,
            happenings=scene.happenings,
            stalls=scene.stalls,
            locked=scene.locked,
            away=watches.pulse.away,
            differences=watches.sums.differences,
            failures=[*injector.failures, *watches.failures],
            workers=tuple(each.name for each in scene.supervisor.machines if each.worker),
            lease_seconds=LEASE_SECONDS,
            pooled=bool(settings.pooler),
        )
        with Connection.open(scene.database.url, name="judge", reply_seconds=600) as connection:
            findings = verdict.judge_all(connection, evidence)
            versions = report.versions(connection)
        return {
            **report.report(settings, evidence=evidence, records=crowd.records, findings=findings),
            "skipped_faults": sorted(set(settings.faults) - set(_kinds(settings))),
            "versions": versions,
            "logs": scene.database.keep_logs() if findings.breaches else None,
        }


def _kinds(settings: ChaosSettings) -> list[str]:
    """Return the kinds of faults that may happen; a seeded defect has those that bring it to light."""
    wanted = DEFECTS[settings.defect].faults if settings.defect else settings.faults
    return [kind for kind in wanted if kind != "wrong-clock" or find_faketime()]


def _live(scene: Scene, crowd: Crowd, injector: Injector, watches: Watches, *, seconds: float) -> None:
    """Let clients post and faults happen for that long; then see everything to its end."""
    watches.pulse.start()
    watches.sums.start()
    crowd.start()
    _wait_for_the_first(scene)
    injector.start()
    scene.pause(seconds)
    scene.over.set()
    injector.join()
    scene.say("no more faults and no new orders")
    scene.database.ensure_running()
    crowd.finish(PLACING_SECONDS)
    _wait_for_the_last(scene)
    scene.supervisor.close()
    watches.close()


_BUSY_WORKERS = "SELECT count(DISTINCT worker_id) FROM orders"


def _wait_for_the_first(scene: Scene) -> None:
    """Wait until every worker has claimed an order: a fault before it does harm to nothing."""
    workers = sum(machine.worker for machine in scene.supervisor.machines)
    give_up_at = time.monotonic() + FIRST_SECONDS
    with scene.database.connect() as connection:
        while time.monotonic() < give_up_at:
            if connection.execute(_BUSY_WORKERS).fetchone() == (workers,):
                scene.say("every worker is at work")
                return
            scene.pause(0.1)


_OPEN = """
SELECT count(*), sum(attempt)
FROM orders
WHERE status IN ('pending', 'processing', 'retrying')
"""


def _wait_for_the_last(scene: Scene) -> None:
    """Wait until every order has ended, or none has moved for too long."""
    last, moved_at = None, time.monotonic()
    with scene.database.connect() as connection:
        while time.monotonic() < moved_at + PATIENCE_SECONDS:
            now = connection.execute(_OPEN).fetchone()
            if now != last:
                last, moved_at = now, time.monotonic()
            if now is None or now[0] == 0:
                scene.say("every order has ended")
                return
            time.sleep(0.2)
    scene.say(f"nothing moves, {last[0] if last else 0} orders are open")


def _abort(scene: Scene, crowd: Crowd, injector: Injector) -> None:
    """Have every thread end soon, and no fault go on when the stage is taken down."""
    scene.over.set()
    crowd.stop.set()
    crowd.give_up.set()
    injector.join()
