"""What `make chaos` is asked to do, from the environment."""

import os
import random
from dataclasses import dataclass
from pathlib import Path

from schema.errors import SettingError
from schema.runtime import settings
from tests import pooler
from tests.chaos.broken import DEFECTS
from tests.chaos.faults import FAULTS


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
    def from_environment(cls, environment: settings.Environment = os.environ) -> "ChaosSettings":
        """Read every variable; raise `SettingError` for the first bad one."""
        report = settings.text(environment, "REPORT", "")
        return cls(
            duration_seconds=settings.seconds(environment, "DURATION", 60, low=1, high=86_400),
            seed=settings.whole_number(environment, "SEED", random.randrange(10**6), low=0, high=10**15),
            defect=_optional(environment, "BREAK", choices=tuple(DEFECTS)),
            faults=_faults(environment),
            pooler=_pooler(environment),
            report=Path(report) if report else None,
        )


def _optional(environment: settings.Environment, name: str, *, choices: tuple[str, ...]) -> str:
    return settings.choice(environment, name, "", choices=choices) if environment.get(name) else ""


def _pooler(environment: settings.Environment) -> str:
    chosen = _optional(environment, "POOLER", choices=("pgbouncer",))
    if chosen and not pooler.is_installed():
        raise SettingError("POOLER", chosen, "expected it to be installed: it is Debian's package pgbouncer")
    return chosen


def _faults(environment: settings.Environment) -> tuple[str, ...]:
    """Return the kinds that may happen: all of them unless `FAULTS` names some, or `none`."""
    given = settings.text(environment, "FAULTS", ",".join(FAULTS))
    if environment.get("FAULTS") and environment.get("BREAK"):
        raise SettingError("FAULTS", given, "expected it to be unset: BREAK has faults of its own")
    names = () if given == "none" else tuple(name.strip() for name in given.split(","))
    if unknown := [name for name in names if name not in FAULTS]:
        raise SettingError("FAULTS", unknown[0], f"expected none, or some of {','.join(FAULTS)}")
    return names
