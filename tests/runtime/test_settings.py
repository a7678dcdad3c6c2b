from collections.abc import Callable
from typing import Any

import pytest

from schema.errors import SettingError
from schema.runtime import settings
from schema.runtime.config import DatabaseConfig
from schema.runtime.connection import checked_url


def number(value: str) -> int:
    return settings.whole_number({"N": value}, "N", 5, low=1, high=1000)


def seconds(value: str) -> float:
    return settings.seconds({"N": value}, "N", 2.5, low=0, high=600)


def choice(value: str) -> str:
    return settings.choice({"N": value}, "N", "text", choices=("text", "json"))


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (number, "7", 7),
        (number, " 1000 ", 1000),
        (number, "", 5),
        (number, "  ", 5),
        (seconds, "0", 0.0),
        (seconds, "0.25", 0.25),
        (seconds, "6e2", 600.0),
        (seconds, "", 2.5),
        (choice, "json", "json"),
        (choice, "", "text"),
    ],
)
def test_good_value_is_taken_and_a_blank_one_is_the_default(
    read: Callable[[str], Any], value: str, expected: Any
) -> None:
    assert read(value) == expected


@pytest.mark.parametrize(
    ("read", "value"),
    [
        *((number, value) for value in ("x", "0", "1001", "-1", "+7", "1.5", "1e3", "٣", "1_0", "9" * 5000)),
        *((seconds, value) for value in ("x", "-0.1", "600.1", "nan", "inf", "-inf", "1s", "1,5")),
        *((choice, value) for value in ("JSON", "xml")),
    ],
)
def test_bad_value_is_named_with_its_variable(read: Callable[[str], Any], value: str) -> None:
    with pytest.raises(SettingError) as raised:
        read(value)

    assert str(raised.value).startswith(f"N is {value!r}: expected ")
    assert raised.value.name == "N"


def test_unset_variable_is_the_default() -> None:
    assert settings.whole_number({}, "N", 5, low=1, high=10) == 5
    assert settings.text({}, "N", "default") == "default"


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://ada:lovelace@127.0.0.1:5432/orders",
        "postgres://ada:lovelace@127.0.0.1/orders",
        "host=127.0.0.1 user=ada password=lovelace",
    ],
)
def test_libpq_s_connection_strings_are_taken_as_they_are(value: str) -> None:
    assert checked_url("DATABASE_URL", value) == value


def test_sqlalchemy_s_form_of_a_url_is_taken_too() -> None:
    assert checked_url("DATABASE_URL", "postgresql+psycopg://ada@db/orders") == "postgresql://ada@db/orders"


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
        checked_url("DATABASE_URL", value)

    assert str(raised.value).startswith(f"DATABASE_URL is {shown!r}: expected a URL")


def test_database_of_the_environment_is_its_url_or_the_embedded_one() -> None:
    assert DatabaseConfig.from_environment({}).url is None
    assert DatabaseConfig.from_environment({"DATABASE_URL": "  "}).url is None
    url = "postgresql://127.0.0.1/orders"
    assert DatabaseConfig.from_environment({"DATABASE_URL": f" {url} "}).url == url
    assert DatabaseConfig.from_environment({"DATABASE_URL": url}).url == url
