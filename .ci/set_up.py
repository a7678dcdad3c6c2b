"""Make `.venv` what setup.cfg and constraints.txt ask for: once, however many ask at the same time.

Runs on the system's Python before anything is installed, so it uses the standard library alone.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "set-up-for"
INPUTS = ("setup.cfg", "constraints.txt", ".ci/set_up.py")


def main() -> int:
    """Set up if there is anything to do; return the exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036 - it is here to tell an older Python
        found = ".".join(map(str, sys.version_info[:2]))
        return fail(f"Python 3.11 or later is needed, this is {found}: try `make … PYTHON=python3.11`")
    wanted = fingerprint()
    if stamped() == wanted:
        return 0
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return 0 if stamped() == wanted else set_up(wanted)


def set_up(wanted: str) -> int:
    """Build the environment anew: a half-made one, or one of another Python, is no base for it."""
    print("setting up .venv (once, about half a minute)", file=sys.stderr, flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    if subprocess.call([sys.executable, "-m", "venv", VENV]) != 0:
        return fail("no virtual environment can be made: is Python's venv module (python3-venv) installed?")
    pip = [VENV / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = ["install", "--constraint", "constraints.txt", "--editable", ".[embedded,dev]"]
    if subprocess.call([*pip, *install], cwd=ROOT) != 0:
        return fail("the packages could not be installed: see above")
    STAMP.write_text(wanted)
    return 0


def fingerprint() -> str:
    """Return what the environment depends on: this Python, this place and the files that list packages."""
    digest = hashlib.sha256(repr((sys.version, sys.executable, str(ROOT))).encode())
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def stamped() -> str | None:
    """Return what the present environment was set up for, None if it never was to the end."""
    return STAMP.read_text() if STAMP.exists() else None


def fail(message: str) -> int:
    """Say what is wrong."""
    print(message, file=sys.stderr)
    return 1


sys.exit(main())
