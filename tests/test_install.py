"""What a machine gets that has nothing of ours yet: a wheel, or a clone and make."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schema.runtime.connection import Connection

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, copy_of_the_checkout: Callable[[Path], Path]) -> Path:
    """The scripts' folder of an environment that has our wheel, without any extra."""
    source = copy_of_the_checkout(tmp_path_factory.mktemp("source"))
    place = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", place, source], check=True)
    venv.create(place / "venv", with_pip=True)
    scripts = place / "venv" / "bin"
    wheel = next(place.glob("*.whl"))
    constraints = ROOT / "constraints.txt"
    subprocess.run([scripts / "pip", "install", "-q", "-c", constraints, wheel], check=True, cwd=place)
    return scripts


def run(script: Path, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **({"DATABASE_URL": url} if url else {})}
    return subprocess.run(
        [script, *arguments], env=environment, cwd=script.parent, capture_output=True, text=True
    )


def test_a_wheel_migrates_and_works_orders(
    installed: Path, empty_database_url: str, wait_until: Callable[..., Any]
) -> None:
    migrated = run(installed / "orders", "migrate", url=empty_database_url)
    assert migrated.returncode == 0, migrated.stderr
    worker = subprocess.Popen(
        [installed / "orders-worker"],
        env={"DATABASE_URL": empty_database_url, "ORDERS_SIMULATED_SECONDS": "0"},
        stderr=subprocess.DEVNULL,
    )
    try:
        with Connection.open(empty_database_url, name="test") as connection:
            connection.execute(
                "INSERT INTO orders (order_id, user_id, item_ids, total_amount)"
                " VALUES (gen_random_uuid(), 'ada', '{tea}', 1)"
            )
            wait_until(lambda: connection.execute("SELECT status FROM orders").fetchone() == ("completed",))
    finally:
        worker.send_signal(signal.SIGTERM)
        status = worker.wait(timeout=30)

    assert status == 0


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
