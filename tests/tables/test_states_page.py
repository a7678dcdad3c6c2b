"""The page of the states shows the moves that the code has, and what the statements really do."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import schema.queue
from schema.runtime.connection import Connection
from schema.states import FINAL, TRANSITIONS, Status
from tests.rows import Queue
from tests.tables.test_states import STATEMENTS

PAGE = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
MOVES = {(status, move): to for status, moves in TRANSITIONS.items() for move, to in moves.items()}

# What a row may hold besides what its state asks for, so that a statement that clears it is seen to do so.
BESIDES: dict[Status, dict[str, str]] = {
    Status.FAILED: {"worker_id": "w", "started_at": "now", "cancel_requested_at": "now"}
}


def arrows() -> list[tuple[str, str, str]]:
    """Every arrow of the drawing: from, to, label."""
    (drawing,) = re.findall(r"^```mermaid\nstateDiagram-v2\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [arrow(line) for line in drawing.splitlines()]


def arrow(line: str) -> tuple[str, str, str]:
    found = re.fullmatch(r" +(\S+) --> (\S+?)(?:: (.+))?", line)
    assert found, line
    return found[1], found[2], found[3] or ""


def rows(columns: int) -> list[list[str]]:
    """The rows of the table that has so many columns."""
    split = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if "|" in line]
    _, _, *rest = [row for row in split if len(row) == columns]
    return rest


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def described() -> dict[tuple[str, str], list[str]]:
    """The rest of each move's row: to, when, statement, sets, clears."""
    return {(before.strip("`"), move): rest for before, move, *rest in rows(7)}


def moving() -> Iterator[tuple[str, str]]:
    """Every whole statement of `schema.queue` that writes an order's state, with its name."""
    for _, module, _ in pkgutil.iter_modules(schema.queue.__path__):
        for name, value in vars(importlib.import_module(f"schema.queue.{module}")).items():
            if isinstance(value, str) and re.match(r"(?s)\s*WITH .*UPDATE orders\s+SET status", value):
                yield value, f"{module}.{name}"


def test_drawing_has_each_transition_once_and_no_other_one() -> None:
    drawn = [(before, to, move) for before, to, move in arrows() if "[*]" not in (before, to)]

    assert sorted(drawn) == sorted((before, to, move) for (before, move), to in MOVES.items())


def test_drawing_begins_in_the_line_and_ends_in_the_final_states() -> None:
    assert [to for before, to, _ in arrows() if before == "[*]"] == [Status.PENDING]
    assert {before for before, to, _ in arrows() if to == "[*]"} == FINAL


def test_table_of_states_has_each_with_its_moves() -> None:
    listed = {state.strip("`"): moves.split(", ") if moves else [] for state, _, moves in rows(3)}

    assert listed == {status: list(moves) for status, moves in TRANSITIONS.items()}


def test_table_of_moves_has_each_with_the_state_that_it_leads_to() -> None:
    assert len(rows(7)) == len(MOVES)
    assert {move: to.strip("`") for move, (to, *_) in described().items()} == MOVES


def test_statements_that_the_page_names_are_those_that_move_an_order() -> None:
    named = {name for _, _, statements, _, _ in described().values() for name in names(statements)}

    assert named == {name for _, name in moving()}


class Recorder(Connection):
    """A connection that keeps what it was asked."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[Any] = []

    def execute(self, query: Any, *arguments: Any, **named: Any) -> psycopg.Cursor[tuple[Any, ...]]:
        self.asked.append(query)
        return super().execute(query, *arguments, **named)


@pytest.fixture
def recorder(database_url: str) -> Iterator[Recorder]:
    with Recorder.open(database_url, name="recorder") as recorder:
        yield recorder


@pytest.mark.parametrize(("status", "move"), MOVES)
def test_page_says_which_statements_make_a_move_and_what_they_set_and_clear(
    recorder: Recorder, status: Status, move: str
) -> None:
    _, _, *told = described()[status, move]
    made: set[str] = set()
    cleared: set[str] = set()
    queue = Queue(recorder)

    for statement in STATEMENTS.values():
        if statement.moves.get(status) == move:
            queue.connection.execute("TRUNCATE orders, workers, attempts")
            queue.worker()
            order_id = queue.insert(status, **BESIDES.get(status, {}), **statement.columns)
            before = vars(queue.row(order_id))
            statement.call(queue, order_id)
            after = vars(queue.row(order_id))
            changed = {name for name in after if after[name] != before[name]} - {"status", "in_line"}
            made |= {name for name in changed if after[name] is not None}
            cleared |= {name for name in changed if after[name] is None}

    asked = {name for statement, name in moving() if statement in recorder.asked}
    assert [asked, made, cleared] == [names(cell) for cell in told]
