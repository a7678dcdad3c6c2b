"""What `make chaos` is asked to do, from the environment."""

import os
import random
from dataclasses import dataclass
from pathlib import Path

from schema.errors import SettingError
from schema.runtime.settings import Environment, Kind, Setting, choice, seconds, whole_number
from tests import pooler
from tests.chaos.broken import DEFECTS
from tests.chaos.faults import FAULTS as KINDS

DURATION = Setting("DURATION", seconds(1, 86_400), default=60.0)
"""How long faults are made."""

SEED = Setting("SEED", whole_number(0, 10**15), default=None)
"""Decides the faults; unset, drawn."""

BREAK = Setting("BREAK", choice(*DEFECTS), default="")
"""The defect to seed."""

FAULTS = Setting("FAULTS", Kind("none, or kinds of fault", str), default="")
"""Unset, all kinds."""

POOLER = Setting("POOLER", choice("pgbouncer"), default="")
"""What stands before the database."""

REPORT = Setting("REPORT", Kind("a path", str), default=None)
"""Where the report goes."""


@dataclass(frozen=True, slots=True)
class ChaosSettings:
    """`seed` decides the faults and their order; what clients order depends on how long they wait, too.

    `defect` is what `BREAK` seeds.
    """

    duration_seconds: float
    seed: int
    defect: str
    faults: tuple[str, ...]
    pooler: str
    report: Path | None

    @classmethod
    def from_environment(cls, environment: Environment = os.environ) -> "ChaosSettings":
        """Read every variable; raise `SettingError` for the first bad one."""
        seed = SEED.read(environment)
        report = REPORT.read(environment)
        return cls(
            duration_seconds=DURATION.read(environment),
            seed=random.randrange(10**6) if seed is None else seed,
            defect=BREAK.read(environment),
            faults=_faults(environment),
            pooler=_pooler(environment),
            report=Path(report) if report else None,
        )


def _pooler(environment: Environment) -> str:
    chosen = POOLER.read(environment)
    if chosen and not pooler.is_installed():
        raise SettingError("POOLER", chosen, "expected it to be installed: it is Debian's package pgbouncer")
    return chosen


def _faults(environment: Environment) -> tuple[str, ...]:
    """Return the kinds that may happen: all of them unless `FAULTS` names some, or `none`."""
    given = FAULTS.read(environment)
    if given and BREAK.read(environment):
        raise SettingError("FAULTS", given, "expected it to be unset: BREAK has faults of its own")
    if given == "none":
        return ()
    names = tuple(name.strip() for name in given.split(",")) if given else tuple(KINDS)
    if unknown := [name for name in names if name not in KINDS]:
        raise SettingError("FAULTS", unknown[0], f"expected none, or some of {','.join(KINDS)}")
    return names
