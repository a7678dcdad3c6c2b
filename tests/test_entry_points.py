"""Every program, when another `schema` than ours is what Python finds, as PyPI's library of that name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(sys.executable).parent
PROGRAMS = [
    [SCRIPTS / "orders", "migrate"],
    [SCRIPTS / "orders", "--version"],
    [SCRIPTS / "orders-api"],
    [SCRIPTS / "orders-worker"],
    [sys.executable, "-m", "orders_api"],
    [sys.executable, "-m", "orders_worker"],
]
FOREIGN = {
    "a package": ("schema/__init__.py", "class Schema: ..."),
    "a module": ("schema.py", "orders = 'a table'"),
    "a broken module": ("schema.py", "import a_module_that_is_not_there"),
}


def run(command: list[str | Path], *, path: Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env={**os.environ, "DATABASE_URL": "host=/nowhere user=x sslmode=none", "PYTHONPATH": str(path)},
        cwd=cwd,
        capture_output=True,
        text=True,
    )


@pytest.fixture(params=FOREIGN)
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a module or package of that name."""
    name, content = FOREIGN[request.param]
    place = tmp_path / "foreign" / name
    place.parent.mkdir(parents=True)
    place.write_text(content)
    return tmp_path / "foreign"


@pytest.mark.parametrize(
    "command", PROGRAMS, ids=lambda words: " ".join(str(word) for word in words[1:] or words)
)
def test_program_that_finds_another_schema_says_in_one_line_what_to_do(
    command: list[str | Path], foreign: Path, tmp_path: Path
) -> None:
    ended = run(command, path=foreign, cwd=tmp_path)

    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"the Python package `schema` ({foreign}")
    assert "pip install --force-reinstall" in line


def test_import_of_the_handlers_face_says_so_too(foreign: Path, tmp_path: Path) -> None:
    ended = run(
        [sys.executable, "-c", "from orders_worker.handler import Reject"], path=foreign, cwd=tmp_path
    )

    assert ended.stderr.splitlines()[-1].startswith("orders_queue.ForeignSchemaError: the Python package")


@pytest.mark.parametrize("program", ["orders_api", "orders_worker"])
def test_program_takes_no_module_from_the_current_folder(program: str, tmp_path: Path) -> None:
    for name in ("falcon", "psycopg", "schema", "waitress"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")

    ended = run([sys.executable, "-m", program], path=tmp_path / "none", cwd=tmp_path)

    assert ended.stderr.startswith("the database (DATABASE_URL) does not let this program in: ")
