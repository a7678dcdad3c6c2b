"""The page of the settings says what the code declares, and when to change each."""

import re
from pathlib import Path

import pytest

from schema.errors import SettingError
from schema.runtime import settings
from schema.runtime.settings import Setting

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))


def row(setting: Setting[object]) -> str:
    default = setting.default
    shown = "unset" if default is None else f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
    return f"| `{setting.name}` | {shown} | {setting.kind.expected} | {setting.meaning} |"


def test_page_has_a_section_for_each_group() -> None:
    assert list(SECTIONS) == list(settings.GROUPS)


@pytest.mark.parametrize("group", settings.GROUPS)
def test_table_of_a_group_says_what_the_code_declares(group: str) -> None:
    _, _, *rows = re.findall(r"^\|.*", SECTIONS[group], re.MULTILINE)

    assert rows == [row(setting) for setting in settings.GROUPS[group]]


@pytest.mark.parametrize("group", settings.GROUPS)
def test_page_says_when_to_change_each_setting(group: str) -> None:
    advised = re.findall(r"^- `([A-Z_]+)`: \w.+", SECTIONS[group], re.MULTILINE)

    assert advised == [setting.name for setting in settings.GROUPS[group]]


def test_refusal_that_the_page_shows_is_the_one_that_a_worker_prints() -> None:
    with pytest.raises(SettingError) as raised:
        settings.CONCURRENCY.read({"ORDERS_CONCURRENCY": "many"})

    assert f"$ ORDERS_CONCURRENCY=many orders-worker\n{raised.value}\n" in PAGE
