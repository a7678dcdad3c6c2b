"""What happens to the network between the machines and the server. Each fault first says what it does."""

from collections.abc import Iterator
from random import Random

from tests.chaos.network import Relay
from tests.chaos.scene import EVERYWHERE, Scene, Told


def cut_network(scene: Scene, dice: Random) -> Iterator[Told]:
    """Reset every connection and refuse new ones."""
    seconds = dice.uniform(0.5, 5)
    relays, place = _some(scene, dice)
    yield Told(place, f"for {seconds:.1f} s")
    for relay in relays:
        relay.cut()
    _wait_and_heal(scene, relays, seconds=seconds)


def stall_network(scene: Scene, dice: Random) -> Iterator[Told]:
    """Hold everything back; it arrives late, in order."""
    seconds = dice.uniform(*dice.choice(((0.5, 8), (0.5, 8), (11, 16))))
    share = dice.choice((0.3, 1.0))
    relays, place = _some(scene, dice)
    yield Told(place, f"for {seconds:.1f} s, {share:.0%} of the connections")
    for relay in relays:
        relay.stall(share, dice)
    _wait_and_heal(scene, relays, seconds=seconds)


def lose_answers(scene: Scene, dice: Random) -> Iterator[Told]:
    """Let the statements through and lose what the server answers."""
    seconds = dice.uniform(0.2, 4)
    relays, place = _some(scene, dice)
    yield Told(place, f"for {seconds:.1f} s")
    for relay in relays:
        relay.lose_answers()
    _wait_and_heal(scene, relays, seconds=seconds)


def reset_network(scene: Scene, dice: Random) -> Iterator[Told]:
    """Reset connections."""
    share = dice.choice((0.3, 1.0))
    relays, place = _some(scene, dice)
    yield Told(place, f"{share:.0%} of the connections")
    for relay in relays:
        relay.reset(share, dice)


def _some(scene: Scene, dice: Random) -> tuple[list[Relay], str]:
    """Choose one machine's way to the database, or all of them."""
    if dice.random() < 0.3:
        return list(scene.relays.values()), EVERYWHERE
    name = dice.choice(sorted(scene.relays))
    return [scene.relays[name]], name


def _wait_and_heal(scene: Scene, relays: list[Relay], *, seconds: float) -> None:
    scene.pause(seconds)
    for relay in relays:
        relay.heal()
