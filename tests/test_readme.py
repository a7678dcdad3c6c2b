"""The README, read as a newcomer would: in a fresh clone, from top to bottom, every command run."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schema.runtime import settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PATIENCE_SECONDS = 180.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def transcript() -> list[tuple[str, str]]:
    """Every command of the README with the answer that it shows."""
    steps = []
    for block in blocks("console"):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, answer = step.partition("\n")
            steps.append((command, answer))
    return steps


def pattern(answer: str) -> re.Pattern[str]:
    """`…` stands for anything; blanks and rulers are as wide as they like."""
    lines = [re.sub(r"-{2,}", "--", " ".join(line.split())) for line in answer.strip().splitlines()]
    return re.compile(r".*".join(map(re.escape, "\n".join(lines).split("…"))), re.DOTALL)


def normal(text: str) -> str:
    lines = [re.sub(r"-{2,}", "--", " ".join(line.split())) for line in text.strip().splitlines()]
    return "\n".join(lines)


class Newcomer:
    """Types commands in one folder; a `make run` goes on in the background until the next one."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.service: subprocess.Popen[bytes] | None = None
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "ORDERS_PORT": str(port),
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        }

    def types(self, command: str, answer: str) -> None:
        command = command.replace(":8000", f":{self.port}").replace("/tmp/orders.dump", "backups/orders.dump")
        answer = answer.replace(":8000", f":{self.port}")
        if command.endswith("make run"):
            self._serve(command, answer)
        else:
            self._ask(command, answer)

    def _ask(self, command: str, answer: str) -> None:
        """Run a command; a question is asked again until the answer is the README's."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        question = "SELECT" in command or "/orders/" in command or "/metrics" in command
        while True:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
            )
            if done.returncode == 0 and pattern(answer).fullmatch(normal(done.stdout)):
                break
            assert question, f"{command}\n{done.stdout}\n{done.stderr}"
            assert time.monotonic() < give_up_at, f"{command}\n{done.stdout}\n{done.stderr}"
            time.sleep(0.2)
        if found := re.search(r'"order_id": "([^"]+)"', done.stdout):
            self.environment["ORDER_ID"] = found[1]

    def _serve(self, command: str, answer: str) -> None:
        self.stop()
        output = self.folder / "make-run.txt"
        with output.open("wb") as stream:
            self.service = subprocess.Popen(
                ["/bin/sh", "-c", command],
                cwd=self.folder,
                env=self.environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not ("Ctrl-C" in (text := output.read_text()) and pattern(answer).fullmatch(normal(text))):
            assert self.service.poll() is None, text
            assert time.monotonic() < give_up_at, text
            time.sleep(0.1)

    def stop(self) -> None:
        """Press Ctrl-C, which a terminal sends to the whole group."""
        if self.service is not None:
            os.killpg(self.service.pid, signal.SIGINT)
            self.service.wait(timeout=60)
            log = (self.folder / "make-run.txt").read_text()
            assert "worker_stopped" in log
            assert "api_stopped" in log
            assert "Traceback" not in log


@pytest.fixture
def newcomer(copy_of_the_checkout: Callable[[Path], Path]) -> Iterator[Newcomer]:
    top = Path(tempfile.mkdtemp(prefix="orders readme "))
    top.chmod(0o755)
    clone = copy_of_the_checkout(top / "fresh clone")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    newcomer = Newcomer(clone, port)
    try:
        yield newcomer
    finally:
        if newcomer.service is not None and newcomer.service.poll() is None:
            os.killpg(newcomer.service.pid, signal.SIGTERM)
            newcomer.service.wait(timeout=60)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["make", "stop-db"], cwd=clone, env=newcomer.environment, timeout=120, check=False)
        shutil.rmtree(top, ignore_errors=True)


@pytest.mark.slow
def test_every_command_of_the_readme_gives_the_answer_that_it_shows(newcomer: Newcomer) -> None:
    (newcomer.folder / "shop.py").write_text(blocks("python")[0])

    for command, answer in transcript():
        if command.startswith("make restore"):
            newcomer.stop()
        newcomer.types(command, answer)


def test_the_settings_table_lists_every_setting() -> None:
    declared = {setting.name for group in settings.GROUPS.values() for setting in group}

    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))

    assert listed == declared


def test_every_make_target_has_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) - {"set-up"}

    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, check=True, text=True).stdout

    assert {line.split()[1] for line in shown.splitlines() if line.startswith("  make ")} == targets
