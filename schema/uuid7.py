"""UUID version 7 (RFC 9562 section 5.7): keys that grow with time, so that inserts share index pages."""

import hashlib
import secrets
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Self
from uuid import UUID


def uuid7() -> UUID:
    """Return a new one: 48 bits of Unix time in milliseconds, 74 random bits."""
    random_bits = secrets.randbits(74)
    high = random_bits >> 62
    low = random_bits & ((1 << 62) - 1)
    return UUID(int=_milliseconds() << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)


@dataclass(frozen=True, slots=True)
class Series:
    """An endless series of them in rising order, of which none gives another away.

    Iterating yields the numbers of UUIDs, from the first each time: a 12-bit counter stands in place of the
    upper random bits (RFC 9562 section 6.2, method 1) and carries into the `milliseconds`. The lower 62 bits
    are each UUID's own: SHAKE256 of `seed`, which is a secret.
    """

    milliseconds: int
    seed: bytes

    @classmethod
    def new(cls) -> Self:
        """Return one of now, with a random seed."""
        return cls(_milliseconds(), secrets.token_bytes(16))

    def __iter__(self) -> Iterator[int]:
        for start in count(0, _BLOCK):
            base = (self.milliseconds + (start >> 12)) << 80 | 0x7 << 76 | (start & 0xFFF) << 64 | 0b10 << 62
            stream = hashlib.shake_256(self.seed + start.to_bytes(8)).digest(8 * _BLOCK)
            yield from [base | place << 64 | bits >> 2 for place, bits in enumerate(_words(stream))]


_words = struct.Struct(">256Q").unpack
_BLOCK = 256
"""UUIDs whose random bits are made at once; 4,096 is a multiple of it, and `base` leaves room for them."""


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
