"""The worker's settings, from the environment."""

import functools
import os
from dataclasses import dataclass

from schema.runtime import settings
from schema.runtime.config import DatabaseConfig, max_attempts


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Everything that one worker process is told.

    `handler` is `package.module:callable`, None for the simulated one. `timeout_seconds` is None for no
    limit, `health_port` None for no probes and 0 for any free port. Durations are in seconds.
    """

    database: DatabaseConfig
    handler: str | None = None
    concurrency: int = 1
    simulated_seconds: float = 2.0
    max_attempts: int = 5
    backoff_seconds: float = 10.0
    poll_seconds: float = 1.0
    lease_seconds: float = 10.0
    shutdown_seconds: float = 30.0
    timeout_seconds: float | None = None
    handler_connections: int = 1
    host: str = "127.0.0.1"
    health_port: int | None = None
    log_format: str = "text"

    @classmethod
    def from_environment(cls, environment: settings.Environment = os.environ) -> "WorkerConfig":
        """Read and check every setting; raise `SettingError` for the first bad one."""
        number = functools.partial(settings.whole_number, environment)
        seconds = functools.partial(settings.seconds, environment)
        concurrency = number("ORDERS_CONCURRENCY", 1, low=1, high=1000)
        probed = settings.text(environment, "ORDERS_HEALTH_PORT", "")
        limited = settings.text(environment, "ORDERS_TIMEOUT_SECONDS", "")
        return cls(
            database=DatabaseConfig.from_environment(environment),
            handler=settings.text(environment, "ORDERS_HANDLER", "") or None,
            concurrency=concurrency,
            simulated_seconds=seconds("ORDERS_SIMULATED_SECONDS", 2, low=0, high=86_400),
            max_attempts=max_attempts(environment),
            backoff_seconds=seconds("ORDERS_BACKOFF_SECONDS", 10, low=0, high=600),
            poll_seconds=seconds("ORDERS_POLL_SECONDS", 1, low=0.01, high=1),
            lease_seconds=seconds("ORDERS_LEASE_SECONDS", 10, low=1, high=3600),
            shutdown_seconds=seconds("ORDERS_SHUTDOWN_SECONDS", 30, low=0, high=86_400),
            timeout_seconds=seconds("ORDERS_TIMEOUT_SECONDS", 0, low=0.01, high=86_400) if limited else None,
            handler_connections=min(number("ORDERS_HANDLER_CONNECTIONS", 10, low=1, high=10), concurrency),
            host=settings.text(environment, "ORDERS_HOST", "127.0.0.1"),
            health_port=number("ORDERS_HEALTH_PORT", 0, low=0, high=65_535) if probed else None,
            log_format=settings.choice(environment, "ORDERS_LOG_FORMAT", "text", choices=("text", "json")),
        )
