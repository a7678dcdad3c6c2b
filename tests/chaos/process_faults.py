"""What happens to processes. Each fault first yields what it is about to do, unless there is nothing to."""

from collections.abc import Iterator
from random import Random

from tests.chaos.scene import Scene, Told

CLOCKS = ("+5h", "-7h", "+40d", "-3d")


def kill_worker(scene: Scene, dice: Random) -> Iterator[Told]:
    """Kill a worker with SIGKILL."""
    machine = scene.worker(dice)
    yield Told(machine.name, "SIGKILL")
    scene.supervisor.kill(machine)


def kill_api(scene: Scene, dice: Random) -> Iterator[Told]:
    """Kill an API process with SIGKILL."""
    machine = scene.api(dice)
    yield Told(machine.name, "SIGKILL")
    scene.supervisor.kill(machine)


def restart_worker(scene: Scene, dice: Random) -> Iterator[Told]:
    """Stop a worker with SIGTERM, as a rolling deployment does."""
    machine = scene.worker(dice)
    yield Told(machine.name, "SIGTERM")
    scene.supervisor.terminate(machine)


def restart_api(scene: Scene, dice: Random) -> Iterator[Told]:
    """Stop an API process with SIGTERM."""
    machine = scene.api(dice)
    yield Told(machine.name, "SIGTERM")
    scene.supervisor.terminate(machine)


def stop_worker(scene: Scene, dice: Random) -> Iterator[Told]:
    """Freeze a worker, shorter than its lease."""
    yield from _stop_worker(scene, dice, seconds=dice.uniform(0.5, 4))


def stop_worker_beyond_its_lease(scene: Scene, dice: Random) -> Iterator[Told]:
    """Freeze a worker until others have its orders, and let it wake up as a zombie."""
    yield from _stop_worker(scene, dice, seconds=dice.uniform(13, 16))


def _stop_worker(scene: Scene, dice: Random, *, seconds: float) -> Iterator[Told]:
    if machine := scene.worker_to_stop(dice):
        yield Told(machine.name, f"for {seconds:.1f} s")
        with scene.stopped(machine):
            scene.pause(seconds)


def stop_api(scene: Scene, dice: Random) -> Iterator[Told]:
    """Freeze an API process."""
    machine, seconds = scene.api(dice), dice.uniform(0.5, 5)
    yield Told(machine.name, f"for {seconds:.1f} s")
    with scene.stopped(machine):
        scene.pause(seconds)


def wrong_clock(scene: Scene, dice: Random) -> Iterator[Told]:
    """Set a machine's clock wrong, or right again, from the next start of its process on, which is now."""
    machine = dice.choice(scene.supervisor.machines)
    machine.clock = "" if machine.clock else dice.choice(CLOCKS)
    yield Told(machine.name, machine.clock or "right again")
    scene.supervisor.terminate(machine)
