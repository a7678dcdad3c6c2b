"""How long a failed order waits before its next attempt."""

import random

CEILING_SECONDS = 600.0
JITTER = 0.25


def backoff(failures: int, *, base_seconds: float) -> float:
    """Return seconds to wait after the `failures`-th failure in a row, counted from 1.

    Doubles from `base_seconds` up to ten minutes, then varies by a quarter either way, so that orders
    that failed together do not come back together.
    """
    doubled = base_seconds * 2.0 ** min(failures - 1, 32)
    return min(doubled, CEILING_SECONDS) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
