"""The API's settings, from the environment."""

import os
from dataclasses import dataclass

from schema.runtime import settings


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """`simulated_seconds` is the time that an order is assumed to take while none has completed.

    As many `processes` serve the `port`, of which 0 is any free one. Without a `database_url` the database is
    the embedded one.
    """

    host: str
    port: int
    processes: int
    simulated_seconds: float
    log_format: str
    log_level: str
    database_url: str | None

    @classmethod
    def from_environment(cls, environment: settings.Environment = os.environ) -> "ApiConfig":
        """Read every setting; raise `SettingError` for the first bad one."""
        return cls(
            host=settings.HOST.read(environment),
            port=settings.PORT.read(environment),
            processes=settings.API_PROCESSES.read(environment),
            simulated_seconds=settings.SIMULATED_SECONDS.read(environment),
            log_format=settings.LOG_FORMAT.read(environment),
            log_level=settings.LOG_LEVEL.read(environment),
            database_url=settings.DATABASE_URL.read(environment),
        )
