"""Load from wrk, a generator in C: it takes little of the two cores from what is measured."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SCRIPTS = Path(__file__).parent / "lua"
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True, slots=True)
class Answers:
    """Requests a second that were answered well, and how many milliseconds that took."""

    rate: float
    p50: float
    p99: float


def load(
    url: str, *, clients: int, seconds: int, script: str = "", given: Mapping[str, str] | None = None
) -> Answers:
    """Send requests from so many clients, each the next one when the last is answered.

    A `script` finds what it is `given` in its environment.
    """
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not here: it is Debian's package wrk")
    command = ["wrk", "--latency", "--threads=1", f"--connections={clients}", f"--duration={seconds}"]
    if script:
        command.append(f"--script={_SCRIPTS / script}")
    environment = {**os.environ, **(given or {})}
    said = subprocess.run([*command, url], env=environment, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"not every request was answered well:\n{said}")
    return Answers(
        rate=_number(r"Requests/sec: +([\d.]+)()", said), p50=_percentile(50, said), p99=_percentile(99, said)
    )


def _percentile(percent: int, said: str) -> float:
    return _number(rf"^ +{percent}% +([\d.]+)(us|ms|s)$", said)


def _number(pattern: str, said: str) -> float:
    found = re.search(pattern, said, re.MULTILINE)
    assert found is not None, said
    return float(found[1]) * _MILLISECONDS.get(found[2], 1.0)
