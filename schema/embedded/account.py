"""The operating system's user that the server runs as, and running programs as that user.

PostgreSQL refuses to run as root. So as root the server runs as whoever owns the checkout, or, where
that is root too, as a system user of its own, `orders-postgres`, made with useradd when it is missing.
Everything below the server's folder is made by programs run as that user: root itself never writes
where an unprivileged user could have put a symbolic link.
"""

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from schema.embedded.config import SERVER_ENVIRONMENT
from schema.errors import StartError

SYSTEM_USER = "orders-postgres"

_USERADD_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Account:
    """A user with a name, which peer authentication needs. `switch`: we are root and must change to it."""

    name: str
    uid: int
    gid: int
    switch: bool = False

    def run(
        self,
        command: Sequence[str | Path],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        what: str | None = None,
        new_session: bool = False,
    ) -> str:
        """Run a program as this user, outside the caller's environment, and return what it printed.

        In a `new_session` neither Ctrl-C nor the terminal's end reaches it.
        Raises `StartError` with `what` (default: the program's name) and the last lines of its standard
        error when it fails.
        """
        words = [os.fspath(word) for word in command]
        what = what or Path(words[0]).name
        try:
            done: subprocess.CompletedProcess[bytes] = subprocess.run(
                words,
                stdin=stdin,
                capture_output=True,
                check=False,
                start_new_session=new_session,
                **self.options(),
            )
        except OSError as error:
            raise StartError(f"{what} can't be run: {error}") from error
        if done.returncode != 0:
            raise StartError(f"{what} failed: {last_lines(done.stderr) or f'status {done.returncode}'}")
        return done.stdout.decode(errors="replace")

    def can_run(self, program: Path) -> bool:
        """Tell whether this user reaches the program and it works here."""
        return self._succeeds([program, "--version"])

    def can_use(self, folder: Path, *, access: str) -> bool:
        """Tell whether this user has all of `access` (letters of r, w, x) to the folder."""
        return all(self._succeeds(["test", f"-{letter}", folder]) for letter in access)

    def _succeeds(self, command: Sequence[str | Path]) -> bool:
        try:
            self.run(command)
        except StartError:
            return False
        return True

    def options(self) -> dict[str, Any]:
        """Return what `subprocess` needs to run a program as this user."""
        options: dict[str, Any] = {"env": SERVER_ENVIRONMENT, "cwd": "/", "umask": 0o077}
        if self.switch:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options


def for_folder(folder: Path) -> Account:
    """Return the user to run a server in `folder` as, which need not exist yet."""
    if os.geteuid() != 0:
        return _named(os.geteuid())
    while not folder.exists():
        folder = folder.parent
    owner = folder.stat().st_uid
    try:
        account = _named(owner, switch=True) if owner != 0 else None
    except StartError:
        account = None
    return account or _system_user()


def ourselves() -> Account:
    """Return the user that this process runs as, who needs no name to run programs."""
    return Account(f"user {os.geteuid()}", os.geteuid(), os.getegid())


def last_lines(text: bytes, count: int = 3) -> str:
    """Return the last lines that aren't blank, after the first that tells of an error, as one line."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    causes = [line for line in lines[:-count] if re.search("PANIC|FATAL|ERROR|error:", line)]
    return " | ".join(causes[:1] + lines[-count:])


def _named(uid: int, *, switch: bool = False) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise StartError(
            f"user {uid} has no name on this machine, and PostgreSQL needs one:"
            " add it to /etc/passwd, or set DATABASE_URL"
        ) from None
    return Account(entry.pw_name, uid, entry.pw_gid, switch)


def _system_user() -> Account:
    """Return `orders-postgres`, made if missing; useradd fails while another process edits /etc/passwd."""
    deadline = time.monotonic() + _USERADD_SECONDS
    while True:
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)
        except KeyError:
            problem = _add_system_user()
        if problem and time.monotonic() > deadline:
            raise StartError(
                f"PostgreSQL can't run as root, and a system user for it can't be made ({problem}):"
                f" create the user {SYSTEM_USER}, or set DATABASE_URL"
            )
        time.sleep(0.1 if problem else 0)


def _add_system_user() -> str:
    """Try once; return what went wrong, or nothing."""
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise StartError(
            "PostgreSQL can't run as root, and there is no useradd to make a system user for it:"
            f" create the user {SYSTEM_USER}, or set DATABASE_URL"
        )
    words = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    words += ["--shell", "/usr/sbin/nologin", SYSTEM_USER]
    done = subprocess.run(words, env=SERVER_ENVIRONMENT, capture_output=True, check=False)
    return last_lines(done.stderr) or f"status {done.returncode}" if done.returncode else ""
