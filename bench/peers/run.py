"""Set the peers up, beside everything else, and have them drain a line of theirs."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from psycopg import conninfo

from bench.stage import GIVE_UP_SECONDS, Stage

_HERE = Path(__file__).parent
_HOME = _HERE / ".installed"
_PYTHON = _HOME / "venv" / "bin" / "python"
_FROM_PIP = _HERE.parent / "requirements-peers.txt"
_FROM_NPM = _HERE / "package.json"


def set_up() -> None:
    """Install them unless that is done: those in Python in an environment of their own, the others by npm."""
    if not (_is_installed(_FROM_PIP) and _PYTHON.exists()):
        venv.create(_HOME / "venv", with_pip=True)
        pip = [_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", _FROM_PIP], check=True)
        shutil.copy(_FROM_PIP, _HOME)
    if not (_is_installed(_FROM_NPM) and (_HOME / "node_modules").exists()):
        if shutil.which("npm") is None:
            raise SystemExit("npm is not here, which installs the peers that are written in JavaScript")
        shutil.rmtree(_HOME / "node_modules", ignore_errors=True)
        shutil.copy(_FROM_NPM, _HOME)
        npm = subprocess.run(["npm", "install", "--silent", "--no-package-lock"], cwd=_HOME, check=False)
        if npm.returncode:
            (_HOME / _FROM_NPM.name).unlink()
            raise SystemExit("npm could not install the peers that are written in JavaScript")
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
    node = _node("graphile.mjs", url)
    _fill(stage, url, node, count)
    return url, node


def pg_boss(stage: Stage, count: int) -> float:
    """Return jobs a second of pg-boss: two workers, 5,000 jobs to a call of the handler."""
    url = _fresh(stage, "pgboss")
    return _fill_and_drain(stage, url, _node("pgboss.mjs", url), count)


def pgqueuer(stage: Stage, count: int, *, batch: int) -> float:
    """Return jobs a second of PgQueuer with asyncpg and uvloop."""
    url = _fresh(stage, "pgqueuer")
    return _fill_and_drain(stage, url, [*_python("pgqueuer_drain.py", url), str(batch)], count)


def awa(stage: Stage, count: int) -> float:
    """Return jobs a second of awa-pg: four partitions with 1,024 jobs at once in each."""
    url = _fresh(stage, "awa")
    # Its URLs want a host, though the socket given after it is what counts.
    return _fill_and_drain(stage, url, _python("awa_drain.py", url.replace("@/", "@localhost/")), count)


def procrastinate(stage: Stage, count: int) -> float:
    """Return jobs a second of Procrastinate: 10 jobs at once."""
    url = _fresh(stage, "procrastinate")
    return _fill_and_drain(stage, url, _python("procrastinate_drain.py", url), count)


def _node(script: str, url: str) -> list[str]:
    return ["node", str(_HOME / script), url]


def _python(script: str, url: str) -> list[str]:
    return [str(_PYTHON), str(_HERE / script), url]


def _fill_and_drain(stage: Stage, url: str, command: list[str], count: int) -> float:
    _fill(stage, url, command, count)
    drain = subprocess.run(
        [*command, str(count), "drain"], check=True, stdout=subprocess.PIPE, timeout=GIVE_UP_SECONDS
    )
    return _rate([drain.stdout])


def _fill(stage: Stage, url: str, command: list[str], count: int) -> None:
    """Have a peer fill its line, and tidy up after that as for ours."""
    subprocess.run([*command, str(count), "fill"], check=True)
    with stage.connect(url) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def _fresh(stage: Stage, name: str) -> str:
    with stage.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    # As a URL, which is what all read.
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
