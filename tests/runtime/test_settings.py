import re
from pathlib import Path
from typing import Any

import pytest

from orders_api.config import ApiConfig
from orders_worker.config import WorkerConfig
from schema.errors import SettingError
from schema.runtime import settings
from schema.runtime.settings import Kind, Setting

ROOT = Path(__file__).parents[2]

NUMBER = Setting("N", settings.whole_number(1, 1000), default=5)
SECONDS = Setting("N", settings.seconds(0, 600), default=2.5)
CHOICE = Setting("N", settings.choice("text", "json"), default="text")
TEXT = Setting("N", Kind("anything", str), default="default")
UNLIMITED = Setting("N", settings.seconds(0, 600), default=None)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        (NUMBER, "7", 7),
        (NUMBER, " 1000 ", 1000),
        (NUMBER, "", 5),
        (NUMBER, "  ", 5),
        (SECONDS, "0", 0.0),
        (SECONDS, "0.25", 0.25),
        (SECONDS, "6e2", 600.0),
        (SECONDS, "", 2.5),
        (CHOICE, "json", "json"),
        (CHOICE, "JSON", "json"),
        (CHOICE, "", "text"),
        (TEXT, " a b ", "a b"),
        (TEXT, " ", "default"),
        (UNLIMITED, "0.25", 0.25),
        (UNLIMITED, " ", None),
    ],
)
def test_good_value_is_taken_and_a_blank_one_is_the_default(
    setting: Setting[object], value: str, expected: object
) -> None:
    assert setting.read({"N": value}) == expected


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *((NUMBER, value) for value in ("x", "0", "1001", "-1", "+7", "1.5", "1e3", "٣", "1_0", "9" * 5000)),
        *((SECONDS, value) for value in ("x", "-0.1", "600.1", "nan", "inf", "-inf", "1s", "1,5")),
        *((CHOICE, value) for value in ("yaml", "xml")),
    ],
)
def test_bad_value_is_named_with_its_variable(setting: Setting[object], value: str) -> None:
    with pytest.raises(SettingError) as raised:
        setting.read({"N": value})

    assert str(raised.value) == f"N is {value!r}: expected {setting.kind.expected}"
    assert raised.value.name == "N"


@pytest.mark.parametrize("setting", [NUMBER, SECONDS, CHOICE, TEXT, UNLIMITED])
def test_unset_variable_is_the_default(setting: Setting[object]) -> None:
    assert setting.read({}) == setting.default


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (NUMBER, "expected a whole number from 1 to 1000"),
        (SECONDS, "expected seconds from 0 to 600"),
        (CHOICE, "expected one of text, json"),
    ],
)
def test_bounds_are_what_is_expected(setting: Setting[object], words: str) -> None:
    with pytest.raises(SettingError, match=f"^N is '-1': {words}$"):
        setting.read({"N": "-1"})


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://ada:lovelace@127.0.0.1:5432/orders",
        "postgres://ada:lovelace@127.0.0.1/orders",
        "host=127.0.0.1 user=ada password=lovelace",
    ],
)
def test_libpq_s_connection_strings_are_taken_as_they_are(value: str) -> None:
    assert settings.DATABASE_URL.read({"DATABASE_URL": value}) == value


def test_sqlalchemy_s_form_of_a_url_is_taken_too() -> None:
    url = "postgresql+psycopg://ada@db/orders"
    assert settings.DATABASE_URL.read({"DATABASE_URL": url}) == "postgresql://ada@db/orders"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgresql://ada:lovelace@[db/orders", "postgresql://ada:***@[db/orders"),
        ("postgresql://ada:lovelace%zz@db/orders", "postgresql://ada:***@db/orders"),
        ("postgresql://ada:love\nlace@db:x/orders", "postgresql://ada:***@db:x/orders"),
        ("postgresql://ada@corp:lovelace@db:x/orders", "postgresql://ada@corp:***@db:x/orders"),
        ("postgresql://:lovelace@db:x/orders", "postgresql://:***@db:x/orders"),
        ("postgresql:/ada:lovelace@db/orders", "postgresql:***@db/orders"),
        ("mysql://ada:lovelace@db/orders", "mysql://ada:***@db/orders"),
        ("postgresql://db:x/orders?password=lovelace&user=a", "postgresql://db:***?password=***"),
        ("postgresql://ada:lovelace/orders", "postgresql://ada:***"),
        ("postgresql://ada:love/lace", "postgresql://ada:***"),
        ("postgresql://db:0/orders", "postgresql://db:0/orders"),
        ("port=x password=lovelace user=a", "port=x password=*** user=a"),
        ("port=x password = 'love lace' user=a", "port=x password = *** user=a"),
        (r"port=x password='love\' lace' user=a", "port=x password=*** user=a"),
        (r"port=x password=love\ lace user=a", "port=x password=*** user=a"),
        ("port=x password=love&lace user=a", "port=x password=*** user=a"),
        ("port=x password='love lace", "port=x password=***"),
        ("port=x sslpassword=lovelace", "port=x sslpassword=***"),
        ("postgresql://ada@db:99999/orders", "postgresql://ada@db:99999/orders"),
        ("orders", "orders"),
    ],
)
def test_malformed_url_is_shown_without_its_password(value: str, shown: str) -> None:
    with pytest.raises(SettingError) as raised:
        settings.DATABASE_URL.read({"DATABASE_URL": value})

    assert str(raised.value).startswith(f"DATABASE_URL is {shown!r}: expected a URL")


def test_database_of_the_environment_is_its_url_or_the_embedded_one() -> None:
    assert settings.DATABASE_URL.read({}) is None
    assert settings.DATABASE_URL.read({"DATABASE_URL": "  "}) is None
    url = "postgresql://127.0.0.1/orders"
    assert settings.DATABASE_URL.read({"DATABASE_URL": f" {url} "}) == url
    assert settings.DATABASE_URL.read({"DATABASE_URL": url}) == url


DECLARED = [each for each in vars(settings).values() if isinstance(each, Setting)]


def test_every_setting_is_read_by_the_api_or_a_worker() -> None:
    environment = Recorder()

    ApiConfig.from_environment(environment)
    WorkerConfig.from_environment(environment)

    assert environment.read == {each.name for each in DECLARED}


class Recorder(dict[str, str]):
    """An environment in which nothing is set, and that knows what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return default


def test_every_name_of_a_setting_in_the_code_is_a_declared_one() -> None:
    names = set()
    for package in ("orders_api", "orders_worker", "schema"):
        for source in (ROOT / package).rglob("*.py"):
            names |= set(re.findall(r"\b(?:ORDERS_[A-Z_]+|DATABASE_URL)\b", source.read_text()))

    assert names == {each.name for each in DECLARED}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ORDERS_CONCURENCY", "ORDERS_CONCURRENCY"),
        ("ORDERS_MAX_ATTEMPT", "ORDERS_MAX_ATTEMPTS"),
        ("orders_port", "ORDERS_PORT"),
        ("ORDER_PORT", "ORDERS_PORT"),
        ("DATABASE_ULR", "DATABASE_URL"),
        ("database_url", "DATABASE_URL"),
        ("Orders_Shop", ""),
        ("ORDERS_SERVICE_HOST", ""),
    ],
)
def test_name_that_looks_like_a_setting_and_is_none_is_found(name: str, nearest: str) -> None:
    assert list(settings.unknown({"PATH": "/bin", name: "x"})) == [(name, nearest)]


def test_no_setting_is_unknown_and_neither_is_what_others_use() -> None:
    names = {each.name for each in vars(settings).values() if isinstance(each, Setting)}
    others = {"HOST", "PORT", "PGDATABASE", "SQLALCHEMY_DATABASE_URI", "_ORDERS_COMPLETE", "ORDER"}

    assert list(settings.unknown(dict.fromkeys(names | others, ""))) == []


def test_name_of_another_program_that_is_nearly_a_settings_is_not_found_beside_it() -> None:
    assert list(settings.unknown({"DATABASE_URI": "x", "DATABASE_URL": "y"})) == []
