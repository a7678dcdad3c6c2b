"""Which processes serve a data folder: found among the running processes, never by a pid file.

A pid file outlives a killed server, and its number may by then be another program's. Each PostgreSQL process
shows its `cluster_name` in its title, which is made of the data folder's device and inode, and has the data
folder as its current directory.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from schema.embedded.environments import SERVER_ENVIRONMENT
from schema.embedded.patience import Patience

_PROC = Path("/proc")


def cluster_name(data: Path) -> str:
    """Return what names the data folder in its processes' titles; it survives a move of the folder."""
    status = data.stat()
    return f"orders-{status.st_dev:x}-{status.st_ino:x}"


def serving(data: Path, *, main_only: bool = False) -> set[int]:
    """Return the pids of the living processes that serve this data folder and run as its owner.

    `main_only` leaves out the children of the server's main process.
    """
    if not data.is_dir():
        return set()
    found = {pid for pid, words in _commands() if _serves(pid, words, data=data, main_only=main_only)}
    return {pid for pid in found if _owner(pid) in {None, data.stat().st_uid}}


def postmaster(data: Path) -> int | None:
    """Return the pid of the server's main process, or None when it doesn't live."""
    return next(iter(serving(data, main_only=True)), None)


def end(data: Path, sent: signal.Signals, *, patience: Patience, main_only: bool = False) -> None:
    """Signal the processes of this data folder, or only the main one, and wait until they are gone."""
    signalled: set[int] = set()
    while pids := serving(data, main_only=main_only):
        for pid in pids - signalled:
            with suppress(ProcessLookupError):
                _signal(pid, sent, data=data)
        signalled |= pids
        patience.wait()


def _signal(pid: int, sent: signal.Signals, *, data: Path) -> None:
    if not hasattr(os, "pidfd_open"):
        os.kill(pid, sent)
        return
    handle = os.pidfd_open(pid)
    try:
        # The handle pins the process: if it still serves the folder now, no other can get the signal.
        if pid in serving(data):
            signal.pidfd_send_signal(handle, sent)
    finally:
        os.close(handle)


def _serves(pid: int, words: list[str], *, data: Path, main_only: bool) -> bool:
    program = Path(words[0]).name
    if words[0].startswith("postgres: "):
        named = words[0].startswith(f"postgres: {cluster_name(data)}: ")
        return not main_only and (named or _stands_in(pid, data))
    # The shell that is about to become the server counts as the server.
    if program not in {"postgres", "sh"}:
        return False
    named = f"cluster_name={cluster_name(data)}" in words
    return named or (program == "postgres" and _stands_in(pid, data))


def _commands() -> Iterator[tuple[int, list[str]]]:
    """Yield each process's pid and the words of its command line; a zombie has none and is left out."""
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
    """Do the same without /proc (macOS): `ps` prints a command line without its words' bounds."""
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
