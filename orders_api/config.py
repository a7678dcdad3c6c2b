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
            processes=settings.API_PROCESSES.read(environment),
            simulated_seconds=settings.SIMULATED_SECONDS.read(environment),
            log_format=settings.LOG_FORMAT.read(environment),
            database=DatabaseConfig.from_environment(environment),
        )
