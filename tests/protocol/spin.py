"""Run Spin on one configuration: generate its verifier, compile it, search, and replay what it found."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.protocol.configurations import Configuration

MODELS = Path(__file__).parent
TOOLS = ("spin", "gcc")
MEMORY_MEGABYTES = 1900
SEARCH_SECONDS = 600

_EXPECTED_IDLE = re.compile(r"(?<!!)\bwithout\(|\bis_poison ->")
"""Steps that only a missing fence or a poisonous order allows."""


class SpinError(Exception):
    """Spin, or the model, did not do what a verdict needs."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a search found: the `promise` that broke and the `story` of it in words, or that all hold.

    `idle` are the steps that were never taken, if that was asked for.
    """

    promise: str | None
    states: int
    story: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    def fits(self, configuration: Configuration) -> bool:
        """Tell whether this is what had to come of it."""
        return self.promise == configuration.promise and not self.idle


def check(configuration: Configuration) -> Verdict:
    """Search all that can happen in a configuration, or as far as to its shortest counterexample."""
    with tempfile.TemporaryDirectory(prefix="orders-protocol-") as name:
        folder = Path(name)
        shutil.copy2(MODELS / f"{configuration.model}.pml", folder)
        _compile(configuration, folder)
        report = _search(configuration, folder)
        states = re.search(r"(\d+) states, stored", report)
        if states is None:
            raise SpinError(f"{configuration.name}: the search said nothing of its states:\n{report}")
        if (folder / f"{configuration.model}.pml.trail").exists():
            promise, story = _replay(configuration, folder)
            return Verdict(promise, int(states[1]), story)
        _require_completeness(configuration, report)
        idle = _idle(configuration, report, folder) if configuration.covered else ()
        return Verdict(None, int(states[1]), idle=idle)


def _compile(configuration: Configuration, folder: Path) -> None:
    # -o3 keeps each transition apart, so that PEG can count it.
    separately = ["-o3"] if configuration.covered else []
    _run(["spin", *_switches(configuration), *separately, "-a", _file(configuration)], folder)
    flags = ["-DNFAIR=3"] if configuration.always else ["-DSAFETY", "-DNOCLAIM", "-DREACH"]
    if configuration.covered:
        flags.append("-DPEG")
    # More optimisation takes longer than it saves.
    _run(["gcc", "-O1", "-w", *flags, f"-DMEMLIM={MEMORY_MEGABYTES}", "-o", "pan", "pan.c"], folder)


def _search(configuration: Configuration, folder: Path) -> str:
    # Acceptance cycles under weak fairness; else assertions alone, and the shortest way to one.
    search = ["-a", "-f"] if configuration.always else ["-E", *(["-i"] if configuration.promise else [])]
    return _run(["./pan", "-m1000000", *search], folder)


def _require_completeness(configuration: Configuration, report: str) -> None:
    if "errors: 0" not in report or re.search("not completed|too small|out of memory|truncated", report):
        raise SpinError(f"{configuration.name}: the search was not complete:\n{report}")


def _replay(configuration: Configuration, folder: Path) -> tuple[str, tuple[str, ...]]:
    """Return the promise that broke and what the model prints on the way there."""
    trail = _run(["spin", *_switches(configuration), "-t", "-B", _file(configuration)], folder)
    story = tuple(
        line.strip().replace("<<<<<START OF CYCLE>>>>>", "... and from here on for ever:")
        for line in trail.splitlines()
        if line.startswith("    ")
    )
    source = (folder / _file(configuration)).read_text().splitlines()
    if broken := re.search(r":(\d+), Error: assertion violated", trail):
        above = "\n".join(source[: int(broken[1])])
        names = re.findall(r"^inline (\w+)", above, re.MULTILINE)
    elif "START OF CYCLE" in trail:
        names = re.findall(r"^ltl (\w+)", "\n".join(source), re.MULTILINE)
    else:
        raise SpinError(f"{configuration.name}: the model itself is wrong:\n{trail}")
    return names[-1].replace("_", " "), story


def _idle(configuration: Configuration, report: str, folder: Path) -> tuple[str, ...]:
    """Return the lines of the model with a step that the search never took."""
    taken = set(re.findall(r"^\s*\d+\s+trans\s+(\d+) ", report, re.MULTILINE))
    steps = re.findall(
        r"\(tr\s+(\d+)\).*\.pml:(\d+) => (?:D_STEP(\d+))?",
        _run(["./pan", "-d"], folder).partition("\nclaim ")[0],
    )
    lines = {int(step or line) for _, line, step in steps}
    lines -= {int(step or line) for number, line, step in steps if number in taken}
    source = (folder / _file(configuration)).read_text().splitlines()
    idle = (source[line - 1].strip() for line in sorted(lines))
    return tuple(step for step in idle if step != "}" and not _EXPECTED_IDLE.search(step))


def _switches(configuration: Configuration) -> list[str]:
    return [f"-D{switch}" for switch in configuration.switches]


def _file(configuration: Configuration) -> str:
    return f"{configuration.model}.pml"


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SEARCH_SECONDS)
    output = done.stdout + done.stderr
    if command[0] == "gcc" and done.returncode:
        raise SpinError(f"gcc failed:\n{output}")
    if command[0] == "spin" and "-a" in command and not (folder / "pan.c").exists():
        raise SpinError(f"spin failed:\n{output}")
    return output
