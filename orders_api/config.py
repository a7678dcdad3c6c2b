"""The API's settings, from the environment."""

import os
from dataclasses import dataclass

from schema import settings
from schema.config import DatabaseConfig


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """`port` 0 means any free one; `simulated_seconds` is what an order takes while none has completed."""

    host: str
    port: int
    simulated_seconds: float
    log_format: str
    database: DatabaseConfig

    @classmethod
    def from_environment(cls, environment: settings.Environment = os.environ) -> "ApiConfig":
        """Read every setting; raise `SettingError` for the first that is wrong."""
        return cls(
            host=settings.text(environment, "ORDERS_HOST", "127.0.0.1"),
            port=settings.whole_number(environment, "ORDERS_PORT", 8000, low=0, high=65535),
            simulated_seconds=settings.seconds(environment, "ORDERS_SIMULATED_SECONDS", 2, low=0, high=86400),
            log_format=settings.choice(environment, "ORDERS_LOG_FORMAT", "text", choices=("text", "json")),
            database=DatabaseConfig.from_environment(environment),
        )
