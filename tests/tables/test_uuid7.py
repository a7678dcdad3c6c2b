import time
from uuid import RFC_4122

from schema.uuid7 import uuid7


def test_version_and_variant_are_those_of_the_rfc() -> None:
    made = [uuid7() for _ in range(1000)]

    assert {(one.version, one.variant) for one in made} == {(7, RFC_4122)}
    assert len(set(made)) == 1000


def test_begins_with_the_milliseconds_of_now() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = uuid7().int >> 80
    after = time.time_ns() // 1_000_000

    assert before <= milliseconds <= after


def test_later_milliseconds_sort_later() -> None:
    made = [uuid7()]
    while len({one.int >> 80 for one in made}) < 5:
        made.append(uuid7())

    milliseconds = [one.int >> 80 for one in sorted(made)]
    assert milliseconds == [one.int >> 80 for one in made]


def test_every_random_bit_varies() -> None:
    ones = zeros = 0
    for _ in range(200):
        number = uuid7().int
        ones |= number
        zeros |= ~number

    random_bits = (1 << 62) - 1 | ((1 << 12) - 1) << 64
    assert ones & random_bits == random_bits
    assert zeros & random_bits == random_bits
