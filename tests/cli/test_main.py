"""Usage, help, statuses, and what every command has in common."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import click
import pytest

from schema.cli.main import orders as program
from tests.cli.conftest import ORDERS, call

Orders = Callable[..., "subprocess.CompletedProcess[str]"]


def commands(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    """Return how each group and command of the program is typed."""
    context = click.Context(group)
    found: list[tuple[str, ...]] = [path]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found += commands(command, *path, name) if isinstance(command, click.Group) else [(*path, name)]
    return found


COMMANDS = commands(program)


def test_the_terminal_knows_these_commands() -> None:
    known = {" ".join(command) for command in COMMANDS}

    assert known == {
        "", "run", "migrate", "show", "list", "cancel", "redrive", "import", "pause", "resume", "verify-fcfs",
        "recount", "grants", "sql", "db", "db start", "db stop", "db url", "db psql", "db backup",
        "db restore",
    }  # fmt: skip


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command != ("db", "psql")], ids=" ".join
)
def test_help_says_what_a_command_does_on_eighty_columns(command: tuple[str, ...]) -> None:
    done = call(*command, "--help", url=None)

    assert (done.returncode, done.stderr) == (0, "")
    usage, _, what, *_ = done.stdout.splitlines()
    assert usage.startswith(" ".join(["Usage: orders", *command]))
    assert what.endswith(".")
    assert "..." not in done.stdout.replace("[ARGS]...", "")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_without_a_command_the_help_is_shown_and_nothing_done() -> None:
    bare, helped = call(url=None), call("-h", url=None)

    assert helped.returncode == 0
    assert (bare.returncode, bare.stdout, bare.stderr) == (2, "", helped.stdout)


def test_version_is_that_of_the_package() -> None:
    done = call("--version", url=None)

    assert done.stdout == f"orders-queue {version('orders-queue')}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["refresh"], "orders: No such command 'refresh'. There are: run, migrate, show,"),
        (["db", "explode"], "orders db: No such command 'explode'. There are: backup, psql,"),
        (["--frobnicate"], "orders: No such option"),
        (["pause", "now"], "orders pause: Got unexpected extra argument"),
        (["show"], "orders show: Missing argument 'ID'."),
        (["show", "\x1b[2J"], r"orders show: Invalid value for 'ID': '\x1b[2J' is not a valid UUID."),
        (["\x1b[2J\u009b"], "orders: No such command"),
        (["list", "--status", "done"], "orders list: Invalid value for '--status': 'done' is not one of"),
        (["list", "--limit", "501"], "orders list: Invalid value for '--limit': 501 is not in the range"),
        (["sql", "nothing"], "orders sql: Invalid value for NAME: There is no 'nothing'"),
        (["redrive"], "orders redrive: Name one order, or say --all-failed."),
        (["redrive", "--all-failed", "--attempts", "0"], "orders redrive: Invalid value for '--attempts'"),
        (["import", "a.csv", "--format", "xml"], "orders import: Invalid value for '--format'"),
        (
            ["db", "restore", "/nowhere"],
            "orders db restore: Invalid value for 'FILE': Path '/nowhere' does not exist.",
        ),
    ],
)
def test_bad_usage_is_explained_in_one_line(arguments: list[str], expected: str) -> None:
    done = call(*arguments, url="postgresql://localhost:1/nowhere")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1
    assert done.stderr.removesuffix("\n").isprintable()
    assert done.stderr.endswith(" --help.\n")


def test_a_malformed_url_is_named_without_its_password() -> None:
    done = call("pause", url="postgresql://me:hunter2@host:port:port/x")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "DATABASE_URL" in done.stderr
    assert "hunter2" not in done.stderr


def test_with_a_url_nothing_of_the_embedded_server_is_imported(database_url: str) -> None:
    code = (
        "import sys; from schema.cli.main import main; main(['pause']); "
        "import orders_api.__main__, orders_worker.__main__; "
        "sys.exit(any('embedded.server' in name or 'pgserver' in name for name in sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "DATABASE_URL": database_url})

    assert done.returncode == 0


def test_ctrl_c_ends_a_command_without_a_word() -> None:
    # It waits half a minute for this database.
    process = subprocess.Popen(
        [*ORDERS, "pause"],
        env={**os.environ, "DATABASE_URL": "postgresql://localhost:1/nowhere"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert "waiting for the database" in process.stderr.readline()
        process.send_signal(2)
        out, errors = process.communicate(timeout=30)

    assert (process.returncode, out, errors.strip()) == (130, "", "")


def test_nobody_who_reads_on_is_no_error(database_url: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" list | true', "sh", *ORDERS],
        env={**os.environ, "DATABASE_URL": database_url, "PYTHONUNBUFFERED": ""},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str) -> None:
    done = call(url=None, _ORDERS_COMPLETE=f"{shell}_source")

    assert done.returncode == 0
    assert f"_ORDERS_COMPLETE={shell}_complete" in done.stdout


def test_completion_offers_commands_and_options() -> None:
    offered = call(url=None, _ORDERS_COMPLETE="bash_complete", COMP_WORDS="orders db re", COMP_CWORD="2")
    options = call(
        url=None, _ORDERS_COMPLETE="bash_complete", COMP_WORDS="orders redrive --a", COMP_CWORD="2"
    )

    assert offered.stdout == "plain,restore\n"
    assert options.stdout.split() == ["plain,--all-failed", "plain,--attempts"]


@pytest.mark.parametrize("command", [["list", "--json"], ["db", "psql", "--version"]])
def test_command_names_what_looks_like_a_setting_and_is_none(orders: Orders, command: list[str]) -> None:
    done = orders(*command, ORDERS_MAX_ATEMPTS="9", ORDERS_SHOP="x")

    assert done.stderr.splitlines()[:2] == [
        "ORDERS_MAX_ATEMPTS is no setting of these programs: is ORDERS_MAX_ATTEMPTS meant?",
        "ORDERS_SHOP is no setting of these programs",
    ]
