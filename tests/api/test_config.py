import pytest

from orders_api.config import ApiConfig
from schema.errors import SettingError


def test_defaults_work_on_a_laptop() -> None:
    assert ApiConfig.from_environment({}) == ApiConfig(
        host="127.0.0.1",
        port=8000,
        processes=1,
        simulated_seconds=2,
        log_format="text",
        log_level="info",
        database_url=None,
    )


def test_every_setting_is_read() -> None:
    environment = {
        "ORDERS_HOST": "::1",
        "ORDERS_PORT": "9000",
        "ORDERS_API_PROCESSES": "4",
        "ORDERS_SIMULATED_SECONDS": "0.01",
        "ORDERS_LOG_FORMAT": "json",
        "ORDERS_LOG_LEVEL": "WARNING",
        "DATABASE_URL": "postgresql://db/orders",
    }

    config = ApiConfig.from_environment(environment)

    assert config == ApiConfig(
        host="::1",
        port=9000,
        processes=4,
        simulated_seconds=0.01,
        log_format="json",
        log_level="warning",
        database_url="postgresql://db/orders",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ORDERS_API_PROCESSES", "0"),
        ("ORDERS_API_PROCESSES", "many"),
        ("ORDERS_PORT", "x"),
        ("ORDERS_PORT", "-1"),
        ("ORDERS_PORT", "65536"),
        ("ORDERS_PORT", "80.0"),
        ("ORDERS_PORT", "9" * 5000),
        ("ORDERS_SIMULATED_SECONDS", "two"),
        ("ORDERS_SIMULATED_SECONDS", "nan"),
        ("ORDERS_SIMULATED_SECONDS", "inf"),
        ("ORDERS_SIMULATED_SECONDS", "-1"),
        ("ORDERS_LOG_FORMAT", "xml"),
    ],
)
def test_bad_setting_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(SettingError) as caught:
        ApiConfig.from_environment({name: value})

    assert str(caught.value).startswith(f"{name} is {value!r}: expected ")


def test_bad_database_url_is_named_without_its_value() -> None:
    with pytest.raises(SettingError, match="DATABASE_URL") as caught:
        ApiConfig.from_environment({"DATABASE_URL": "postgresql://ada:s3cret@["})

    assert "s3cret" not in str(caught.value)
