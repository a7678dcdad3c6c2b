"""`make bench`: measure every question, or the one that QUESTION names, and print what came of it.

Keeps it in bench/results.json and docs/performance.md. Exits 1 if a bound is missed. FULL=1 takes the larger
sizes.
"""

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from bench import (
    against_peers,
    bulk,
    cost,
    depth,
    drain,
    held,
    history,
    idle,
    memory,
    metrics,
    page,
    pickup,
    submit,
)
from bench.measurement import Measurement
from bench.stage import Stage

RESULTS = Path(__file__).parent / "results.json"

QUESTIONS: dict[str, Callable[..., Iterator[Measurement]]] = {
    "drain": drain.measure,
    "cost": cost.measure,
    "submit": submit.measure,
    "bulk": bulk.measure,
    "held": held.measure,
    "depth": depth.measure,
    "history": history.measure,
    "metrics": metrics.measure,
    "idle": idle.measure,
    "memory": memory.measure,
}
OPTIONAL = {"peers": against_peers.measure, "pickup": pickup.measure}
"""What is measured only if QUESTION names it: it installs other people's programs."""


def main() -> int:
    """Measure, and return the exit status."""
    wanted = os.environ.get("QUESTION") or ""
    if wanted and wanted not in QUESTIONS | OPTIONAL:
        print(f"QUESTION is {wanted!r}: expected one of {', '.join(QUESTIONS | OPTIONAL)}", file=sys.stderr)
        return 2
    full = bool(os.environ.get("FULL"))
    measured = []
    for name in [wanted] if wanted else list(QUESTIONS):
        with Stage() as stage:
            for measurement in (QUESTIONS | OPTIONAL)[name](stage, full=full):
                print(measurement.line(), flush=True)
                measured.append(measurement)
            versions = _versions(stage)
    _keep(measured, versions, full=full)
    return 0 if all(each.met for each in measured) else 1


def _versions(stage: Stage) -> dict[str, str]:
    with stage.connect() as connection:
        row = connection.execute("SHOW server_version").fetchone()
    assert row is not None
    return {
        "postgresql": str(row[0]).split()[0],
        "python": platform.python_version(),
        "psycopg": psycopg.__version__,
    }


def _keep(measured: list[Measurement], versions: dict[str, str], *, full: bool) -> None:
    """Put the measurements in the place of earlier ones of the same questions."""
    kept = json.loads(RESULTS.read_text())["measurements"] if RESULTS.exists() else []
    questions = {each.question for each in measured}
    others = [each for each in kept if each["question"] not in questions]
    document = {
        "processors": os.cpu_count(),
        "versions": versions,
        "measurements": [*others, *({**each.document(), "full": full} for each in measured)],
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    page.write(document)


if __name__ == "__main__":
    sys.exit(main())
