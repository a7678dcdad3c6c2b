"""Set the peers up, beside everything else, and have them drain a line of theirs."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from psycopg import conninfo

from bench.stage import Stage

GRAPHILE = "Graphile Worker"
PGQUEUER = "PgQueuer"

_HERE = Path(__file__).parent
_HOME = _HERE / ".installed"
_PYTHON = _HOME / "venv" / "bin" / "python"
_FROM_PIP = _HERE.parent / "requirements-peers.txt"
_FROM_NPM = _HERE / "package.json"


def set_up() -> None:
    """Install them unless that is done: those in Python in an environment of their own, the others by npm."""
    if not _is_installed(_FROM_PIP):
        venv.create(_HOME / "venv", with_pip=True)
        pip = [_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", _FROM_PIP], check=True)
        shutil.copy(_FROM_PIP, _HOME)
    if not (_is_installed(_FROM_NPM) and (_HOME / "node_modules").exists()):
        if shutil.which("npm") is None:
            raise SystemExit("npm is not here, which installs the peers that are written in JavaScript")
        shutil.rmtree(_HOME / "node_modules", ignore_errors=True)
        shutil.copy(_FROM_NPM, _HOME)
        subprocess.run(["npm", "install", "--silent", "--no-package-lock"], cwd=_HOME, check=True)
    for script in _HERE.glob("*.mjs"):
        shutil.copy(script, _HOME)


def _is_installed(wanted: Path) -> bool:
    """Whether what was installed last is what this file names."""
    installed = _HOME / wanted.name
    return installed.exists() and installed.read_text() == wanted.read_text()


def graphile(stage: Stage, count: int, *, processes: int = 1) -> float:
    """Return jobs a second of Graphile Worker: 24 jobs at once, 500 locked ahead, completions in batches."""
    _, node = fill_graphile(stage, count)
    drains = [
        subprocess.Popen([*node, str(count), "drain"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(processes)
    ]
    return _rate([drain.communicate()[0] for drain in drains])


def fill_graphile(stage: Stage, count: int) -> tuple[str, list[str]]:
    """Put jobs into a fresh database; return its URL, and the command that lacks a count and a mode."""
    url = _fresh(stage, "graphile")
    node = ["node", str(_HOME / "graphile.mjs"), url]
    subprocess.run([*node, str(count), "fill"], check=True, stderr=subprocess.DEVNULL)
    with stage.connect(url) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    return url, node


def pgqueuer(stage: Stage, count: int, *, batch: int) -> float:
    """Return jobs a second of PgQueuer with asyncpg and uvloop."""
    command = [_PYTHON, _HERE / "pgqueuer_drain.py", _fresh(stage, "pgqueuer"), str(count), str(batch)]
    return _rate([subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout])


def _fresh(stage: Stage, name: str) -> str:
    with stage.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    # As a URL, which is what both read.
    given = conninfo.conninfo_to_dict(stage.url)
    host = str(given["host"]).replace("/", "%2F")
    return f"postgresql://{given['user']}@/{name}?host={host}&port={given['port']}"


def _rate(printed: list[bytes]) -> float:
    """Return jobs a second, from the first start of any process to the last one's end."""
    told: list[dict[str, Any]] = [json.loads(each) for each in printed]
    seconds = max(each["last"] for each in told) - min(each["first"] for each in told if each["count"])
    return float(sum(each["count"] for each in told) / seconds)


if __name__ == "__main__":
    sys.exit(set_up())
