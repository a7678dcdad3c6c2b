"""The worker's settings, from the environment."""

import os
from dataclasses import dataclass

from schema.runtime import settings


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Everything that one worker process is told.

    `database_url` is None for the embedded PostgreSQL. `handler` is `package.module:callable`, None for the
    simulated one. `timeout_seconds` is None for no limit, `health_port` None for no probes and 0 for any free
    port. Durations are in seconds.
    """

    database_url: str | None
    handler: str | None
    concurrency: int
    simulated_seconds: float
    max_attempts: int
    backoff_seconds: float
    poll_seconds: float
    lease_seconds: float
    shutdown_seconds: float
    timeout_seconds: float | None
    handler_connections: int
    host: str
    health_port: int | None
    log_format: str
    log_level: str

    @classmethod
    def from_environment(cls, environment: settings.Environment = os.environ) -> "WorkerConfig":
        """Read and check every setting; raise `SettingError` for the first bad one."""
        concurrency = settings.CONCURRENCY.read(environment)
        return cls(
            database_url=settings.DATABASE_URL.read(environment),
            handler=settings.HANDLER.read(environment),
            concurrency=concurrency,
            simulated_seconds=settings.SIMULATED_SECONDS.read(environment),
            max_attempts=settings.MAX_ATTEMPTS.read(environment),
            backoff_seconds=settings.BACKOFF_SECONDS.read(environment),
            poll_seconds=settings.POLL_SECONDS.read(environment),
            lease_seconds=settings.LEASE_SECONDS.read(environment),
            shutdown_seconds=settings.SHUTDOWN_SECONDS.read(environment),
            timeout_seconds=settings.TIMEOUT_SECONDS.read(environment),
            handler_connections=min(settings.HANDLER_CONNECTIONS.read(environment), concurrency),
            host=settings.HOST.read(environment),
            health_port=settings.HEALTH_PORT.read(environment),
            log_format=settings.LOG_FORMAT.read(environment),
            log_level=settings.LOG_LEVEL.read(environment),
        )
