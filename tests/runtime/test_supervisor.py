"""What happens to processes under a supervisor: real ones, whose only work is to count signals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

SUPERVISE = """
import json, sys
from schema.runtime import logs
from schema.runtime.signals import StopSignals
from schema.runtime.supervisor import Supervisor

logs.configure("text")
stop = StopSignals()
stop.install()
policy = json.loads(sys.argv[2])
on_end = None if policy.pop("replace") else lambda process: None
ended = Supervisor(json.loads(sys.argv[1]), stop=stop, on_end=on_end, **policy).run()
stop.ignore()
print(json.dumps([[each.module, each.returncode, each.asked] for each in ended]))
"""

COUNTS = """
import os, signal, sys

def count(*_):
    global counted
    counted += 1
    if counted == int(sys.argv[1]):
        sys.exit(0)
    report()

def report():
    with open("counted.new", "w") as file:
        file.write(f"{os.getpid()} {counted}")
    os.rename("counted.new", "counted")

counted = 0
signal.signal(signal.SIGTERM, count)
report()
while True:
    signal.pause()
"""
"""Ends at so many signals; until then the file `counted` has its process id and how many came."""

ENDS = """
import os, sys, time

while not os.path.exists("counted"):
    time.sleep(0.01)
sys.exit(3)
"""
"""Ends by itself when the other one takes signals."""


class Supervised:
    def __init__(self, folder: Path, *programs: tuple[str, ...], policy: dict[str, Any]) -> None:
        self._folder = folder
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, json.dumps(programs), json.dumps(policy)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(folder / "modules")},
                stdout=subprocess.PIPE,
                stderr=log,
            )

    @property
    def counted(self) -> list[int]:
        """The process id of the one that counts, and how many signals it has counted."""
        with suppress(FileNotFoundError):
            return [int(word) for word in (self._folder / "counted").read_text().split()]
        return []

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def ends(self) -> list[list[Any]]:
        """Wait for the end; return module, status and whether it was asked to stop, of each."""
        said, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, self.log
        ends: list[list[Any]] = json.loads(said)
        return ends


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "counts.py").write_text(COUNTS)
    (modules / "ends.py").write_text(ENDS)
    with ExitStack() as stack:

        def start(*programs: tuple[str, ...], **policy: Any) -> Supervised:
            supervised = Supervised(tmp_path, *programs, policy=policy)
            stack.enter_context(supervised.process)
            stack.callback(supervised.process.kill)
            return supervised

        yield start


def test_process_that_does_not_stop_in_time_is_killed(
    supervise: Callable[..., Supervised], wait_until: Callable[..., Any]
) -> None:
    supervised = supervise(("counts", "1000"), replace=True, kill_seconds=0.5)
    wait_until(lambda: supervised.counted)

    supervised.process.send_signal(signal.SIGTERM)

    assert supervised.ends() == [["counts", -signal.SIGKILL, True]]
    assert supervised.counted[1] == 1


def test_end_is_noticed_also_where_its_signal_was_blocked_at_the_start(
    supervise: Callable[..., Supervised],
) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        supervised = supervise(("counts", "1"), ("ends",), replace=False)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    assert ["ends", 3, False] in supervised.ends()


def test_signals_within_a_second_are_passed_on_once_and_those_after_it_once_more(
    supervise: Callable[..., Supervised], wait_until: Callable[..., Any]
) -> None:
    supervised = supervise(("counts", "1000"), replace=True, kill_seconds=3)
    wait_until(lambda: supervised.counted)

    def has_ended_after_one_more_signal() -> bool:
        supervised.process.send_signal(signal.SIGTERM)
        return supervised.process.poll() is not None

    wait_until(has_ended_after_one_more_signal)

    assert supervised.ends() == [["counts", -signal.SIGKILL, True]]
    assert supervised.counted[1] == 2


def test_end_of_one_stops_the_others_and_a_signal_hurries_them(
    supervise: Callable[..., Supervised], wait_until: Callable[..., Any]
) -> None:
    supervised = supervise(("counts", "2"), ("ends",), replace=False)
    wait_until(lambda: supervised.counted[1:] == [1])

    supervised.process.send_signal(signal.SIGTERM)

    assert supervised.ends() == [["ends", 3, False], ["counts", 0, True]]


def test_signal_in_the_pause_before_a_process_is_replaced_ends_it(
    supervise: Callable[..., Supervised], wait_until: Callable[..., Any]
) -> None:
    supervised = supervise(("ends",), ("counts", "1"), replace=True)
    wait_until(lambda: supervised.log.count("process_ended") == 3)

    supervised.process.send_signal(signal.SIGTERM)

    assert supervised.ends() == [["counts", 0, True]]
    assert supervised.log.count("process_started") == 4


def test_processes_stop_when_their_supervisor_is_killed(
    supervise: Callable[..., Supervised], wait_until: Callable[..., Any]
) -> None:
    supervised = supervise(("counts", "1"), replace=True)
    pid, _ = wait_until(lambda: supervised.counted)

    supervised.process.kill()

    wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
