"""`orders run`, as `make run` calls it: both programs together, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

# Where nohup runs the tests it has SIGHUP ignored, and so would this.
PROGRAM = """
import signal, sys
from schema.cli.main import main
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.exit(main())
"""
Run = Callable[..., "Running"]


class Running:
    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def children(self) -> list[int]:
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]

    def child(self, program: str) -> int:
        """The process id of one of its children."""
        return next(pid for pid in self.children if program in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def run(tmp_path: Path, database_url: str, port: int) -> Iterator[Run]:
    with ExitStack() as stack:

        def start(folder: Path | None = None, **settings: str) -> Running:
            log = tmp_path / "said"
            given = {"DATABASE_URL": database_url, "ORDERS_PORT": str(port), **settings}
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, "run"],
                    cwd=folder,
                    env={**os.environ, **given},
                    stdout=stream,
                    stderr=stream,
                    start_new_session=True,
                )
            stack.callback(end, process)
            return Running(process, log)

        yield start


def end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_both_cleanly(run: Run, wait_until: Callable[..., Any], number: int) -> None:
    running = run()
    wait_until(lambda: "Ctrl-C" in running.said and "worker_registered" in running.said)

    running.process.send_signal(number)

    assert running.process.wait(timeout=30) == 0
    assert "worker_stopped" in running.said
    assert "api_stopped" in running.said


def test_a_signal_before_they_have_begun_is_no_failure(run: Run, wait_until: Callable[..., Any]) -> None:
    running = run()
    wait_until(lambda: running.children)

    running.process.send_signal(signal.SIGTERM)

    assert running.process.wait(timeout=30) == 0


@pytest.mark.parametrize("program", ["orders_api", "orders_worker"])
def test_when_one_dies_the_other_is_ended_and_the_reason_said(
    run: Run, wait_until: Callable[..., Any], program: str
) -> None:
    running = run()
    wait_until(lambda: "Ctrl-C" in running.said and "worker_registered" in running.said)

    os.kill(running.child(program), signal.SIGKILL)

    assert running.process.wait(timeout=30) == 128 + signal.SIGKILL
    assert f"{program} was killed by signal 9: stopping" in running.said
    assert ("worker_stopped" if program == "orders_api" else "api_stopped") in running.said


def test_a_bad_setting_of_one_is_the_status_of_all(run: Run) -> None:
    running = run(ORDERS_HANDLER="nosuch:work")

    assert running.process.wait(timeout=30) == 2
    assert "ORDERS_HANDLER is 'nosuch:work'" in running.said


def test_programs_end_with_the_one_that_started_them(run: Run, wait_until: Callable[..., Any]) -> None:
    running = run()
    wait_until(lambda: "worker_registered" in running.said and "api_started" in running.said)

    running.process.kill()

    wait_until(lambda: "worker_stopped" in running.said and "api_stopped" in running.said)


HANDLER = """
import atexit, pathlib

def work(order, context):
    pass

atexit.register(pathlib.Path("ended").touch)
"""


def test_a_handler_is_found_in_the_current_folder_and_nothing_of_ours_is(
    run: Run, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    (tmp_path / "falcon.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "chef.py").write_text(HANDLER)
    running = run(tmp_path, ORDERS_HANDLER="chef:work")
    wait_until(lambda: "Ctrl-C" in running.said and "worker_registered" in running.said)

    running.process.send_signal(signal.SIGTERM)

    assert running.process.wait(timeout=30) == 0
    assert (tmp_path / "ended").exists()


def test_a_port_in_use_is_refused_before_anything_starts(run: Run, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        running = run()
        status = running.process.wait(timeout=30)

    assert status == 2
    assert f"ORDERS_PORT is '{port}'" in running.said
    assert "worker_registered" not in running.said


@pytest.mark.parametrize("program", ["orders_api", "orders_worker"])
def test_help_is_an_answer_and_no_start(program: str) -> None:
    helped = subprocess.run([sys.executable, "-m", program, "--help"], capture_output=True, text=True)
    refused = subprocess.run([sys.executable, "-m", program, "--port=1"], capture_output=True, text=True)

    assert helped.returncode == 0
    assert re.search(r"usage: orders-(api|worker)", helped.stdout)
    assert refused.returncode == 2
