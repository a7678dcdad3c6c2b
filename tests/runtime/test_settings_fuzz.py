"""Any text in any variable is a setting within its range, or refused by a line that names the variable."""

import re
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from psycopg import conninfo

from orders_api.config import ApiConfig
from orders_worker.config import WorkerConfig
from schema.errors import SettingError
from schema.runtime.settings import DATABASE_URL

pytestmark = pytest.mark.proof

Config = TypeVar("Config")

FUZZ = settings(max_examples=300, deadline=None, print_blob=True)

# As in os.environ: no NUL, and a byte that is no UTF-8 is half a surrogate pair.
texts = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])
)
odd_numbers = st.sampled_from(
    ["9" * 5000, "1e400", "-0", "nan", "inf", "0x10", "1_000", "٣", "1e-400", " 1 ", "+1", "1.", ".5"]
)
plain = texts | st.integers().map(str) | st.integers(0, 1000).map(str) | st.floats().map(str) | odd_numbers

ports = st.sampled_from(["5432", "0", "99999", "x", "", "٣", "5432,", "9" * 5000, "-1"]) | texts
urls = (
    texts
    | st.builds("postgresql://{}@{}:{}/{}".format, texts, texts, ports, texts)
    | st.builds("postgresql+psycopg://h:{}/{}".format, ports, texts)
    | st.builds("host={} port={} password={}".format, texts, ports, texts)
    | ports.map("port={}".format)
)

WORKER = (
    "ORDERS_HANDLER ORDERS_CONCURRENCY ORDERS_SIMULATED_SECONDS ORDERS_MAX_ATTEMPTS ORDERS_BACKOFF_SECONDS"
    " ORDERS_POLL_SECONDS ORDERS_LEASE_SECONDS ORDERS_SHUTDOWN_SECONDS ORDERS_TIMEOUT_SECONDS"
    " ORDERS_HANDLER_CONNECTIONS ORDERS_LOG_FORMAT"
)
API = "ORDERS_HOST ORDERS_PORT ORDERS_SIMULATED_SECONDS ORDERS_LOG_FORMAT"


def environments(names: str) -> st.SearchStrategy[dict[str, str]]:
    """Set a few variables, so that one wrong value seldom hides the others."""
    return st.dictionaries(st.sampled_from(names.split()), plain, max_size=2)


def read(from_environment: Callable[[dict[str, str]], Config], environment: dict[str, str]) -> Config | None:
    """Return the config, None if a variable is to blame for there being none."""
    try:
        return from_environment(environment)
    except SettingError as error:
        refusal = error
    assert refusal.name in environment
    assert str(refusal).startswith(f"{refusal.name} is ")
    assert len(str(refusal).encode().splitlines()) == 1
    return None


@FUZZ
@given(environments(WORKER))
@example({"ORDERS_LEASE_SECONDS": "nan"})
def test_worker_has_settings_within_their_ranges_or_names_the_wrong_one(environment: dict[str, str]) -> None:
    config = read(WorkerConfig.from_environment, environment)

    if config is not None:
        assert 1 <= config.concurrency <= 1000
        assert 0 <= config.simulated_seconds <= 86_400
        assert 1 <= config.max_attempts <= 1000
        assert 0 <= config.backoff_seconds <= 600
        assert 0.01 <= config.poll_seconds <= 1
        assert 1 <= config.lease_seconds <= 3600
        assert 0 <= config.shutdown_seconds <= 86_400
        assert config.timeout_seconds is None or 0.01 <= config.timeout_seconds <= 86_400
        assert 1 <= config.handler_connections <= min(10, config.concurrency)
        assert config.log_format in {"text", "json"}
        assert config.log_level in {"info", "warning", "error"}
        assert config.handler is None or config.handler.strip()


@FUZZ
@given(environments(API))
def test_api_has_settings_within_their_ranges_or_names_the_wrong_one(environment: dict[str, str]) -> None:
    config = read(ApiConfig.from_environment, environment)

    if config is not None:
        assert 0 <= config.port <= 65_535
        assert config.host.strip()
        assert 0 <= config.simulated_seconds <= 86_400
        assert config.log_format in {"text", "json"}
        assert config.log_level in {"info", "warning", "error"}


@FUZZ
@given(urls)
@example("postgresql://\udcff@db/orders")
@example(f"port={'9' * 5000}")
@example("port=٣")
@example("postgresql://ada:%a0@db/orders")
def test_database_url_is_one_that_libpq_reads_or_is_named(url: str) -> None:
    found = read(DATABASE_URL.read, {"DATABASE_URL": url})

    if found is not None:
        given_ports = conninfo.conninfo_to_dict(found).get("port", "5432")
        assert all(re.fullmatch("[0-9]+", port) for port in str(given_ports).split(","))


passwords = st.text("abcdefgh0123456789@:%&+-_!$*.~\xe9", min_size=6).map("s3cr3t{}s3cr3t".format)
hostless = ["postgresql://ada:{}", "postgresql://ada:{}/orders"]
wrong = [
    "postgresql://ada:{}@[db/orders",
    "postgresql://ada:{}@db:x/orders",
    "postgresql://ada:{}@db:99999",
    "postgresql://ada:{}%zz@db/orders",
    "postgresql:/ada:{}@db/orders",
    "mysql://ada:{}@db:3306/orders",
    "ada:{}@db",
    "postgresql://db:x/orders?user=ada&password={}",
    "host=db port=x password={}",
    "host=db port=x password='{}'",
    "host=db port=x password = {} user=ada",
    "password='{} user=ada",
]


@FUZZ
@given(st.sampled_from(wrong + hostless), passwords)
def test_password_in_a_wrong_database_url_is_never_shown(url: str, password: str) -> None:
    assume(url not in hostless or "@" not in password)  # what follows an @ is the host to any reader

    assert "s3cr3t" not in refusal(url.format(password))


def refusal(url: str) -> str:
    """Return what is said against a URL; an @ in the password may make it one that libpq reads."""
    try:
        DATABASE_URL.read({"DATABASE_URL": url})
    except SettingError as error:
        return str(error)
    return ""
