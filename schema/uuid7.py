"""UUID version 7 (RFC 9562 section 5.7): keys that grow with time, so that inserts share index pages."""

import secrets
import time
from uuid import UUID


def uuid7() -> UUID:
    """Return a new one: 48 bits of Unix time in milliseconds, 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random_bits = secrets.randbits(74)
    high = random_bits >> 62
    low = random_bits & ((1 << 62) - 1)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)
