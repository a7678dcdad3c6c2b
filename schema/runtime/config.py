"""The settings that more than one kind of process reads, from the environment."""

import os
from dataclasses import dataclass

from schema.runtime import settings
from schema.runtime.url import checked_url


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """`url` is a libpq connection string, or None for the embedded PostgreSQL of this checkout."""

    url: str | None

    @classmethod
    def from_environment(cls, environment: settings.Environment = os.environ) -> "DatabaseConfig":
        """Read `DATABASE_URL`; raise `SettingError` when it is set but no connection string."""
        url = settings.DATABASE_URL.read(environment)
        return cls(url=checked_url(settings.DATABASE_URL.name, url) if url else None)


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Where the API listens: `port` 0 means any free one."""

    host: str
    port: int

    @classmethod
    def from_environment(cls, environment: settings.Environment = os.environ) -> "ServiceConfig":
        """Read `ORDERS_HOST` and `ORDERS_PORT`; raise `SettingError` for a bad one."""
        return cls(host=settings.HOST.read(environment), port=settings.PORT.read(environment))


def max_attempts(environment: settings.Environment = os.environ) -> int:
    """Read `ORDERS_MAX_ATTEMPTS`: the attempts that an order is given; raise `SettingError` for a bad one."""
    return settings.MAX_ATTEMPTS.read(environment)
