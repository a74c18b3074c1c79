"""A hung engine is told from a busy one, killed once, and reported until its replica goes."""

import asyncio

import pytest

from serve_app.deployments.pulse import Pulse
from tests.fakes import FOREVER, soon, until


class Core:
    """An engine's core that answers after `delay_s`, or is dead."""

    def __init__(self, delay_s: float = 0.0, *, dead: bool = False) -> None:
        self.delay_s = delay_s
        self.dead = dead
        self.asked = 0
        self.left = 0
        self.killed = 0

    async def ask(self) -> bool:
        self.asked += 1
        if self.dead:
            raise RuntimeError("the core is dead")
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.left += 1
            raise
        return False

    def kill(self) -> None:
        self.killed += 1


def pulse_of(core: Core, *, stall_s: float = 0.05, grace_s: float = 0.01) -> Pulse:
    return Pulse(core.ask, core.kill, stall_s=stall_s, every_s=0.001, grace_s=grace_s)


async def test_an_engine_that_answers_is_asked_on_and_on() -> None:
    core = Core()
    pulse = pulse_of(core)
    running = asyncio.create_task(pulse.run())
    await until(lambda: core.asked >= 3)
    running.cancel()
    pulse.check()
    assert core.killed == 0


async def test_a_hung_engine_is_killed_once_and_told_from_then_on() -> None:
    core = Core(FOREVER)
    pulse = pulse_of(core)
    await soon(pulse.run())
    assert (core.killed, core.asked) == (1, 1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no sign of life"):
            pulse.check()
    await until(lambda: core.left == 1)


async def test_an_engine_is_not_blamed_before_its_time_is_over() -> None:
    core = Core(FOREVER)
    pulse = pulse_of(core, stall_s=FOREVER)
    running = asyncio.create_task(pulse.run())
    await until(lambda: core.asked)
    pulse.check()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await until(lambda: core.left == 1)
    assert core.killed == 0


async def test_an_answer_that_waited_to_be_read_counts() -> None:
    """As after a stop of this very process: the time is over, and the answer is there a moment later."""
    core = Core(0.05)
    pulse = pulse_of(core, stall_s=0.01, grace_s=1.0)
    running = asyncio.create_task(pulse.run())
    await until(lambda: core.asked >= 2)
    running.cancel()
    pulse.check()
    assert core.killed == 0


async def test_a_dead_engine_is_left_to_its_own_health_check() -> None:
    core = Core(dead=True)
    pulse = pulse_of(core)
    await soon(pulse.run())
    pulse.check()
    assert core.killed == 0
