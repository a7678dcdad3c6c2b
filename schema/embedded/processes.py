"""Which processes serve a data folder: never a pid file's word, always the processes themselves.

A pid file outlives a killed server, and its number may by then be another program's. The processes
can't lie: each is started with the data folder's device and inode as its `cluster_name`, which every
PostgreSQL process shows in its title, and has the data folder as its current directory.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schema.embedded.config import SERVER_ENVIRONMENT
from schema.embedded.patience import Patience

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a server: its `postmaster`, or a child that shows what it does in its title."""

    pid: int
    postmaster: bool


def cluster_name(data: Path) -> str:
    """Return what names the data folder in its processes' titles; it survives a move of the folder."""
    status = data.stat()
    return f"orders-{status.st_dev:x}-{status.st_ino:x}"


def of(data: Path) -> list[Process]:
    """Return the living processes that serve this data folder and run as its owner."""
    if not data.is_dir():
        return []
    return [process for pid, words in _commands() if (process := _match(pid, words, data=data))]


def postmaster(data: Path) -> int | None:
    """Return the pid of the server's main process, or None when it doesn't live."""
    return next((process.pid for process in of(data) if process.postmaster), None)


def end(data: Path, sent: signal.Signals, *, patience: Patience, main_only: bool = False) -> None:
    """Signal the processes of this data folder, or only the main one, and wait until they are gone."""
    signalled: set[int] = set()
    while pids := {process.pid for process in of(data) if process.postmaster or not main_only}:
        for pid in pids - signalled:
            _signal(pid, sent, data=data)
        signalled |= pids
        patience.wait()


def _signal(pid: int, sent: signal.Signals, *, data: Path) -> None:
    if not hasattr(os, "pidfd_open"):
        os.kill(pid, sent)
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The handle pins the process: if it still serves the folder now, no other can get the signal.
        if any(process.pid == pid for process in of(data)):
            signal.pidfd_send_signal(handle, sent)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _match(pid: int, words: list[str], *, data: Path) -> Process | None:
    title = words[0]
    child = title.startswith("postgres: ")
    # The shell that is about to become the server counts as the server.
    if not child and Path(title).name not in {"postgres", "sh"}:
        return None
    name = cluster_name(data)
    named = title.startswith(f"postgres: {name}: ") if child else f"cluster_name={name}" in words
    if not named and (Path(title).name == "sh" or not _stands_in(pid, data)):
        return None
    return Process(pid, postmaster=not child) if _owner(pid) in {None, data.stat().st_uid} else None


def _commands() -> Iterator[tuple[int, list[str]]]:
    """Yield each process's pid and words; a zombie has none and is left out."""
    if not (_PROC / "self" / "cmdline").exists():
        yield from _commands_by_ps()
        return
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if line:
                yield int(entry.name), os.fsdecode(line).rstrip("\0").split("\0")


def _commands_by_ps() -> Iterator[tuple[int, list[str]]]:
    """Do the same without /proc (macOS), where only whole lines can be had."""
    words = ["ps", "-axww", "-o", "pid=,command="]
    listing = subprocess.run(words, env=SERVER_ENVIRONMENT, capture_output=True, text=True, check=False)
    for line in listing.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        program, option, rest = command.strip().partition(" -D ")
        yield int(pid), [program, *(option + rest).split()]


def _owner(pid: int) -> int | None:
    try:
        return (_PROC / str(pid)).stat().st_uid
    except OSError:
        return None


def _stands_in(pid: int, folder: Path) -> bool:
    # Not readable for root in a container without CAP_SYS_PTRACE: there the title decides alone.
    try:
        return (_PROC / str(pid) / "cwd").samefile(folder)
    except OSError:
        return False
