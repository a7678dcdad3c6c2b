"""The README and the pages in `docs/`, followed as a newcomer would: in a fresh clone, every command typed.

In a `console` block `$ ` begins a command and `> ` goes on with it; `^C` is Ctrl-C in the terminal of
`make run`. The other lines are the answer, where `…` stands for anything. A Python block is written to the
file that the sentence before it names.
"""

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
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 180.0

PAGES = (
    "README.md",
    "docs/sql.md",
    "docs/api.md",
    "docs/handler.md",
    "docs/settings.md",
    "docs/operations.md",
)
"""Every page with commands, in the order in which they are read: each goes on where the one before ends."""

BLOCK = re.compile(r"(?:`(\w+\.py)`[^`]*\n\n)?^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^(?=\$ |\^C$)", re.MULTILINE)
QUESTION = re.compile(r"SELECT|curl -s http|orders (list|show)")
"""What may be asked again until the answer is there."""


class Step(NamedTuple):
    """A command with its answer and exit status; or a file to be written; or Ctrl-C."""

    command: str
    answer: str = ""
    status: int = 0
    file: str = ""


def steps(page: str) -> Iterator[Step]:
    """Return what a page asks its reader to do."""
    for file, language, text in BLOCK.findall((ROOT / page).read_text()):
        if language == "python":
            assert file, f"{page} has a Python block that it names no file for"
            yield Step("write", text, file=file)
        else:
            yield from typed(text)


def typed(text: str) -> Iterator[Step]:
    """Return the commands of a console block; `echo $?` shows the status of the one before it."""
    typed = [step(part) for part in PROMPT.split(text) if part]
    for now, after in zip(typed, [*typed[1:], Step("")], strict=True):
        if now.command != "echo $?":
            yield now._replace(status=int(after.answer) if after.command == "echo $?" else 0)


def step(part: str) -> Step:
    first, *lines = part.removeprefix("$ ").splitlines()
    rest = next((place for place, line in enumerate(lines) if not line.startswith("> ")), len(lines))
    command = [first, *(line.removeprefix("> ") for line in lines[:rest])]
    return Step("\n".join(command), "\n".join(lines[rest:]))


def pattern(answer: str) -> re.Pattern[str]:
    return re.compile(r".*".join(map(re.escape, normal(answer).split("…"))), re.DOTALL)


def normal(text: str) -> str:
    """Make blanks and rulers as narrow as they can be."""
    lines = [re.sub(r"-{2,}", "--", " ".join(line.split())) for line in text.strip().splitlines()]
    return "\n".join(lines)


class Newcomer:
    """Follows steps in one folder. A `make run` goes on in the background until Ctrl-C."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folder = folder
        self.ports = ports
        self.service: subprocess.Popen[bytes] | None = None
        self.sourced = ""
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "ORDERS_PORT": str(ports["8000"]),
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        }

    def follow(self, step: Step) -> None:
        for shown, port in self.ports.items():
            step = step._replace(
                command=step.command.replace(shown, str(port)), answer=step.answer.replace(shown, str(port))
            )
        if step.file:
            (self.folder / step.file).write_text(step.answer)
        elif step.command == "^C":
            self.interrupt()
        elif step.command.endswith("make run"):
            self._serve(step)
        else:
            self._type(step)

    def interrupt(self) -> None:
        """Press Ctrl-C, which a terminal sends to the whole group."""
        assert self.service is not None, "nothing runs"
        os.killpg(self.service.pid, signal.SIGINT)
        self.service.wait(timeout=60)
        self.service = None
        log = (self.folder / "make-run.txt").read_text()
        assert "worker_stopped" in log
        assert "api_stopped" in log
        assert "Traceback" not in log

    def leave(self) -> None:
        """Stop all that may still run, whatever has happened."""
        if self.service is not None and self.service.poll() is None:
            os.killpg(self.service.pid, signal.SIGTERM)
            self.service.wait(timeout=60)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["make", "stop-db"], cwd=self.folder, env=self.environment, timeout=120, check=False
            )

    def _type(self, step: Step) -> None:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            done = subprocess.run(
                ["/bin/sh", "-c", self.sourced + step.command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode == step.status and pattern(step.answer).fullmatch(normal(done.stdout)):
                break
            asked_again = QUESTION.search(step.command) and time.monotonic() < give_up_at
            assert asked_again, f"{step.command}\n{done.stdout}\nstatus {done.returncode}"
            time.sleep(0.2)
        if step.command.startswith(". "):
            self.sourced += f"{step.command}\n"
        if found := re.search(r'"order_id": "([^"]+)"', done.stdout):
            self.environment["ORDER_ID"] = found[1]

    def _serve(self, step: Step) -> None:
        assert self.service is None, "something runs already"
        output = self.folder / "make-run.txt"
        with output.open("wb") as stream:
            self.service = subprocess.Popen(
                ["/bin/sh", "-c", self.sourced + step.command],
                cwd=self.folder,
                env=self.environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not ("Ctrl-C" in (text := output.read_text()) and pattern(step.answer).fullmatch(normal(text))):
            assert self.service.poll() is None, text
            assert time.monotonic() < give_up_at, text
            time.sleep(0.1)


@pytest.fixture
def newcomer(copy_of_the_checkout: Callable[[Path], Path]) -> Iterator[Newcomer]:
    top = Path(tempfile.mkdtemp(prefix="orders readme "))
    top.chmod(0o755)
    newcomer = Newcomer(copy_of_the_checkout(top / "fresh clone"), {"8000": free_port(), "8001": free_port()})
    try:
        yield newcomer
    finally:
        newcomer.leave()
        shutil.rmtree(top, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_gives_the_answer_that_its_page_shows(newcomer: Newcomer) -> None:
    for page in PAGES:
        for step in steps(page):
            newcomer.follow(step)


def test_every_page_with_commands_is_followed() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").glob("*.md"),
    ]

    found = {str(page.relative_to(ROOT)) for page in pages if "```console" in page.read_text()}

    assert found == set(PAGES)


def test_every_make_target_has_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) - {"set-up"}

    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, check=True, text=True).stdout

    assert {line.split()[1] for line in shown.splitlines() if line.startswith("  make ")} == targets
