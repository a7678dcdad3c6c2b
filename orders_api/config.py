"""The API's settings, from the environment."""

import os
from dataclasses import dataclass

from schema.runtime import settings
from schema.runtime.config import DatabaseConfig, ServiceConfig


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """`simulated_seconds` is the time that an order is assumed to take while none has completed.

    As many `processes` serve the port.
    """

    service: ServiceConfig
    processes: int
    simulated_seconds: float
    log_format: str
    database: DatabaseConfig

    @classmethod
    def from_environment(cls, environment: settings.Environment = os.environ) -> "ApiConfig":
        """Read every setting; raise `SettingError` for the first bad one."""
        return cls(
            service=ServiceConfig.from_environment(environment),
            processes=settings.whole_number(environment, "ORDERS_API_PROCESSES", 1, low=1, high=64),
            simulated_seconds=settings.seconds(environment, "ORDERS_SIMULATED_SECONDS", 2, low=0, high=86400),
            log_format=settings.choice(environment, "ORDERS_LOG_FORMAT", "text", choices=("text", "json")),
            database=DatabaseConfig.from_environment(environment),
        )
