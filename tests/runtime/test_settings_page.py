"""The page of the settings says what the code declares, and when to change each."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from schema.errors import SettingError
from schema.runtime import settings
from schema.runtime.settings import Setting

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
DECLARED = {name: each for name, each in vars(settings).items() if isinstance(each, Setting)}


def meanings() -> dict[str, str]:
    """The docstring below each constant, as it stands in the page: without a capital and a full stop."""
    statements = ast.parse(Path(settings.__file__).read_text()).body
    return {
        ast.unparse(assigned.targets[0]): lowered(" ".join(ast.literal_eval(words.value).split()))
        for assigned, words in pairwise(statements)
        if isinstance(assigned, ast.Assign) and isinstance(words, ast.Expr)
    }


def lowered(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:].removesuffix(".")


def row(setting: Setting[object], meaning: str) -> str:
    default = setting.default
    shown = "unset" if default is None else f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
    return f"| `{setting.name}` | {shown} | {setting.kind.expected} | {meaning} |"


def test_tables_say_what_the_code_declares_in_its_order() -> None:
    said = meanings()

    rows = re.findall(r"^\| `.*", PAGE, re.MULTILINE)

    assert rows == [row(setting, said[name]) for name, setting in DECLARED.items()]


def test_page_says_when_to_change_each_setting() -> None:
    advised = re.findall(r"^- `([A-Z_]+)`: \w.+", PAGE, re.MULTILINE)

    assert advised == [setting.name for setting in DECLARED.values()]


def test_refusal_that_the_page_shows_is_the_one_that_a_worker_prints() -> None:
    with pytest.raises(SettingError) as raised:
        settings.CONCURRENCY.read({"ORDERS_CONCURRENCY": "many"})

    assert f"$ ORDERS_CONCURRENCY=many orders-worker\n{raised.value}\n" in PAGE
